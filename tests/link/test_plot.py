import numpy as np
import pytest
from tests.link.test_simulate import link, run, speech

from semaphone.link.plot import KINDS, plot_link


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [100, 40_000])
def test_pictures_are_drawn(tmp_path, kind, samples):
    said = speech(samples)
    heard, record = run([said], link("uniform:0.3"))
    path = tmp_path / f"talk.{kind}"
    plot_link(path, kind, said, heard, record, 16000, 0.08, "a talk")
    head = path.read_bytes()[:100]
    assert head.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert np.isfinite(heard).all()
