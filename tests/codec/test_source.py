import numpy as np
import torch

from semaphone.codec.source import CausalSpectrum, HarmonicSource


def test_a_voiced_source_has_the_pitch_it_is_given():
    wave, _ = HarmonicSource(16000, 160)(torch.full((1, 100), 200.0), torch.ones(1, 100))
    spectrum = np.abs(np.fft.rfft(wave[0, 8000:].numpy() * np.hanning(8000)))
    peaks = np.flatnonzero(spectrum > 0.3 * spectrum.max()) * 2.0  # bins of 2 Hz
    assert np.all(np.minimum(peaks % 200, 200 - peaks % 200) <= 4)
    assert len(np.unique(np.round(peaks / 200))) > 30


def test_an_unvoiced_source_is_noise_of_the_same_level():
    source = HarmonicSource(16000, 160)
    voiced, _ = source(torch.full((1, 100), 150.0), torch.ones(1, 100))
    unvoiced, _ = source(torch.full((1, 100), 150.0), torch.zeros(1, 100))
    assert 0.7 < float(unvoiced[:, 400:].std() / voiced[:, 400:].std()) < 1.4


def test_analysis_and_synthesis_give_the_signal_back():
    spectrum = CausalSpectrum(480, 160)
    x = torch.randn(2, 160 * 40)
    spectra, _ = spectrum.analyse(x)
    y, _ = spectrum.synthesise(spectra)
    # What window k ends with comes out when its hop is complete: 320 samples late.
    torch.testing.assert_close(y[:, 640:], x[:, 320:-320], atol=1e-4, rtol=0)
