import numpy as np
import pytest
import soundfile
import torch

from attn_speech.audio import WavWriter, leveled, read_audio, trim, wav_bytes

RATE = 16000


def noise(seconds=0.5, rate=RATE):
    return (0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))).astype("float32")


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype", "changes"),
    [
        ("a.wav", RATE, 1, "PCM_16", ()),
        ("a.wav", 44100, 1, "PCM_16", ("resampled from 44100 Hz",)),
        ("a.wav", RATE, 2, "PCM_24", ("mixed from 2 channels",)),
        ("a.flac", 22050, 2, "PCM_24", ("mixed from 2 channels", "resampled from 22050 Hz")),
        ("a.wav", RATE, 1, "FLOAT", ()),
    ],
)
def test_any_rate_width_and_channels(tmp_path, name, rate, channels, subtype, changes):
    samples = np.stack([noise(rate=rate)] * channels, 1)
    soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
    sound = read_audio(tmp_path / name, RATE)
    assert sound.changes == changes and sound.rate == RATE
    assert abs(len(sound.audio) - RATE // 2) <= 1


def _cut(path):
    soundfile.write(path, noise(), RATE)
    path.write_bytes(path.read_bytes()[:5000])


def _cut_as(kind):
    def make(path):
        soundfile.write(path, noise(), RATE, format=kind)
        path.write_bytes(path.read_bytes()[:5000])

    return make


def _text(path):
    path.write_text("not sound")


def _samples(value, rate=RATE):
    return lambda path: soundfile.write(path, value, rate, subtype="FLOAT")


def _with(value):
    return np.append(noise(), np.float32(value))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_cut, "the file is cut, 11044 bytes"),
        (_cut_as("AIFF"), "the file is cut, 1[0-9]+ bytes"),
        (_cut_as("W64"), "the file is cut, 1[0-9]+ bytes"),
        (_text, "cannot be read as sound"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (_samples(np.zeros(0, "float32")), "has no samples"),
        (_samples(np.zeros(900, "float32")), "is silent"),
        (_samples(np.array([0.1, np.nan], "float32")), "NaN or infinite"),
        (_samples(np.clip(9 * noise(), -1, 1)), "is clipped, [0-9.]+% of its samples"),
        (_samples(np.array([0.1, 3.0], "float32")), "samples reach 3"),
        (_samples(_with(5.0), 48000), "samples reach 5"),
        (_samples(_with(np.inf), 48000), "NaN or infinite"),
        (_samples(np.stack([np.clip(9 * noise(), -1, 1), 0 * noise()], 1)), "is clipped"),
        (_samples(np.stack([noise(), -noise()], 1)), "is silent"),
    ],
)
def test_files_of_no_use_are_refused_by_name(tmp_path, make, message):
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(ValueError, match=f"bad.wav: .*{message}"):
        read_audio(path, RATE)


def test_a_file_that_was_written_into_a_pipe_is_whole(tmp_path):
    path = tmp_path / "piped.wav"
    soundfile.write(path, noise(), RATE)
    raw = bytearray(path.read_bytes())
    raw[4:8] = raw[40:44] = b"\xff" * 4
    path.write_bytes(raw)
    assert len(read_audio(path, RATE).audio) == RATE // 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.wav: no such sound file"):
        read_audio(tmp_path / "none.wav", RATE)


def test_silence_is_cut_to_50_and_100_ms():
    quiet = torch.zeros(RATE)
    audio = torch.cat([quiet, torch.from_numpy(noise()), quiet])
    kept = trim(audio, RATE)
    assert len(kept) == RATE // 2 + round(0.15 * RATE)
    assert kept[: RATE // 20].abs().max() == 0
    assert trim(kept[:9], RATE).equal(kept[:9])


def test_loudness_is_set_below_the_peak():
    audio = torch.from_numpy(noise())
    assert abs(20 * leveled(audio).square().mean().sqrt().log10() + 23) < 0.1
    spike = torch.zeros(1000)
    spike[3] = 0.5
    assert leveled(spike).max() == pytest.approx(0.98)


def test_a_written_file_is_whole_after_every_piece(tmp_path):
    path, audio = tmp_path / "new" / "out.wav", torch.from_numpy(noise())
    with WavWriter(path, RATE) as writer:
        for stop in (0, 3000, 8000):
            writer.write(audio[writer.frames : stop])
            assert soundfile.info(path).frames == stop
    assert path.read_bytes() == wav_bytes(audio, RATE)
    np.testing.assert_allclose(soundfile.read(path)[0], audio, atol=1e-4)
