"""Recorded delays: what a file says is what packets take, and nothing but such a file is read."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semaphone.channel.delays import DelayTrace, read_delays
from semaphone.errors import InputError

TEXT = "# sent, arrived, delay\n0,0,12\n\n20,30,10\n40,140,112.5\n"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read(tmp_path, packed):
    file = tmp_path / "delays.csv"
    file.write_bytes(gzip.compress(TEXT.encode()) if packed else TEXT.encode())
    trace = read_delays(file)
    assert trace.times == pytest.approx((0.0, 0.02, 0.04))
    assert trace.delays == pytest.approx((0.002, 0.0, 0.1025))
    assert trace.length == pytest.approx(0.06)


def test_it_begins_anew_after_its_end():
    trace = DelayTrace("x", (0.0, 0.5), (0.01, 0.2), 1.0)
    assert [trace.at(t) for t in (0.0, 0.49, 0.5, 0.99, 1.0, 7.6)] == [0.01, 0.01, 0.2, 0.2, 0.01, 0.2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"0,1\nx,2\n", "Line 2 of"),
        (b"0,1\n5\n", "Line 2 of"),
        (b"0,1\n5,nan\n", "Line 2 of"),
        (b"0,1\n", "fewer than two"),
        (b"0,1\n0,2\n", "of one time"),
        (b"0,1\n5,99999\n", "differ by more than 60 s"),
        (b"\xff\xfe\xfd", "cannot be read"),
        (b"\x1f\x8bnothing packed", "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path, content, sentence):
    file = tmp_path / "delays.csv"
    file.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_delays(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_delays(tmp_path / "missing.csv")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.lists(st.tuples(st.floats(), st.floats()), max_size=5))
def test_any_file_is_a_trace_or_an_error(tmp_path, content):
    file = tmp_path / "delays.csv"
    text = content if isinstance(content, bytes) else "\n".join(f"{a},{b}" for a, b in content).encode()
    file.write_bytes(text)
    try:
        trace = read_delays(file)
    except InputError:
        return
    assert all(0 <= trace.at(t) <= 60 for t in (0.0, 0.1, trace.length, 1e6))
