import csv

import numpy as np
import pytest
import soundfile
import torch

pytest_plugins = ["core_attn.testing.plugin"]

RATE = 16000


def hum(seconds=0.8, pitch=180.0, rate=RATE, seed=0):
    """A buzzing vowel with a little noise, in silence."""
    time = np.arange(int(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    quiet = np.zeros(rate // 10)
    return np.concatenate([quiet, 0.1 * voice + 0.01 * noise, quiet]).astype("float32")


def _record(folder):
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "text"])
        for i in range(6):
            soundfile.write(folder / f"c{i}.wav", hum(0.5 + 0.1 * i, seed=i), RATE)
            rows.writerow([f"c{i}.wav", f"clip number {i}"])
    return folder


@pytest.fixture
def recordings(tmp_path):
    """A folder of six clips and their table."""
    return _record(tmp_path / "clips")


@pytest.fixture(scope="module")
def shared_recordings(tmp_path_factory):
    """The same for several tests, that leave it as it is."""
    return _record(tmp_path_factory.mktemp("recordings") / "clips")


@pytest.fixture
def voice():
    """An untrained voice that reads letters."""
    from attn_speech.audio import MelFeatures
    from attn_speech.models import TransformerTTSConfig
    from attn_speech.text import CHARACTERS, Characters
    from attn_speech.voice import Voice

    torch.manual_seed(0)
    config = TransformerTTSConfig(
        vocabulary=len(CHARACTERS), mels=80, embed_dim=16, dim=16, heads=2, encoder_depth=1,
        decoder_depth=2, encoder_hidden=16, decoder_hidden=16, encoder_prenet_dim=16,
        decoder_prenet_dim=8, postnet_dim=16, reduction=2,
    )  # fmt: skip
    features = MelFeatures(mean=(-2.0,) * 80, std=(0.5,) * 80)
    return Voice(config.build(), features, Characters(), CHARACTERS, longest=20)
