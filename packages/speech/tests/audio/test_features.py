import pytest
import torch

from attn_speech.audio import MelFeatures
from attn_speech.metrics.distances import log_mel_l1


def tone(seconds=1.0, rate=16000, pitch=220.0):
    time = torch.arange(int(seconds * rate)) / rate
    return 0.3 * sum(torch.sin(2 * torch.pi * pitch * k * time) / k for k in range(1, 9))


def test_frames_are_one_per_hop_and_one_more():
    features = MelFeatures()
    for samples in (600, 2000, 2001):
        assert len(features.log_mel(tone()[:samples])) == samples // features.hop + 1


@pytest.mark.parametrize("log_base", ["10", "e"])
def test_silence_has_its_log_mel_in_either_base(log_base):
    features = MelFeatures(log_base=log_base)
    torch.testing.assert_close(
        features.log_mel(torch.zeros(2000)), torch.full((11, 80), features.silence)
    )


def test_scaling_is_undone_and_fitted_to_the_data():
    mels = [MelFeatures().log_mel(tone(pitch=pitch)) for pitch in (150.0, 300.0)]
    features = MelFeatures().fitted(mels)
    scaled = torch.cat([features.scaled(mel) for mel in mels])
    torch.testing.assert_close(scaled.mean(0), torch.zeros(80), atol=1e-3, rtol=0)
    torch.testing.assert_close(features.restored(features.scaled(mels[0])), mels[0])
    assert MelFeatures.from_dict(features.as_dict()) == features


def test_features_that_differ_are_named_and_statistics_may_differ():
    features = MelFeatures()
    features.require(features.fitted([features.log_mel(tone())]), "the vocoder")
    with pytest.raises(ValueError, match="of the vocoder are others: hop 200 against 256, low 80"):
        features.require(MelFeatures(hop=256, low=0.0), "the vocoder")


def test_griffin_lim_gives_the_frames_back_and_leaves_the_random_state():
    features = MelFeatures()
    audio = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    mel = features.log_mel(audio)
    state = torch.random.get_rng_state()
    again = features.griffin_lim(mel)
    assert torch.random.get_rng_state().equal(state)
    assert again.equal(features.griffin_lim(mel))
    assert log_mel_l1(features.log_mel(again)[: len(mel)], mel[: len(again) // 200 + 1]) < 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mels": 0}, "mels must be at least 1"),
        ({"floor": 0.0}, "floor above 0, got 80 and 0.0"),
        ({"log_base": "2"}, "log_base 10 or e, got 'slaney' and '2'"),
        ({"hop": 900}, "hop 900, window 800"),
        ({"high": 9000.0}, "must lie in 0 ... 8000"),
        ({"mean": (0.0,), "std": (1.0,)}, "80 entries, or none"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        MelFeatures(**options)


def test_too_short_for_a_frame():
    with pytest.raises(ValueError, match="audio of 512 samples is too short"):
        MelFeatures().log_mel(torch.zeros(512))
