import shutil

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from attn_speech.data import ClipFolder, LibriTTS, LJSpeech, PackagedClips, SpeechData
from attn_speech.data.batching import frame_batches, padded

RATE = 16000


def data(source, tmp_path, **options):
    made = SpeechData(
        source, front_end="characters", cache=str(tmp_path / "cache"),
        **{"valid": 1, "test": 1, **options},
    )  # fmt: skip
    made.prepare_data()
    made.setup("fit")
    return made


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_batches_hold_every_utterance_once_within_the_cap(frames):
    batches = frame_batches(frames, 60)
    assert sorted(i for batch in batches for i in batch) == list(range(len(frames)))
    assert all(len(batch) * max(frames[i] for i in batch) <= 60 for batch in batches)


def test_an_utterance_longer_than_a_batch_is_named():
    with pytest.raises(ValueError, match="utterance 1 has 9 frames, more than a batch's 8"):
        frame_batches([3, 9], 8)


def test_batches_come_in_an_order_given_by_seed_and_epoch(recordings, tmp_path):
    def order(epoch, **options):
        made = data(ClipFolder(str(recordings)), tmp_path, frames_per_batch=150, **options)
        loader = made.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [batch.mel_lengths.tolist() for batch in loader]

    assert order(0) == order(0) and sorted(order(0)) == sorted(order(1))
    assert any(order(0) != order(epoch) for epoch in range(1, 6))


def test_what_is_prepared_is_kept_and_features_are_fitted_to_the_training_part(
    recordings, tmp_path, capsys
):
    made = data(ClipFolder(str(recordings)), tmp_path)
    assert capsys.readouterr().out == "ClipFolder: 6 clips, 0.00 h, 1 speaker(s)\n"
    train = torch.cat([made.prepared[i].mel for i in made.parts["train"]])
    torch.testing.assert_close(
        made.features.scaled(train).mean(0), torch.zeros(80), atol=1e-4, rtol=0
    )
    stamp = [path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.f32")]
    again = data(ClipFolder(str(recordings)), tmp_path)
    assert stamp == [path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.f32")]
    assert again.prepared[0].mel.equal(made.prepared[0].mel)
    utterance = made.prepared[0]
    assert len(utterance.audio) == 200 * len(utterance.mel)


def test_segments_are_waveforms_with_their_frames(recordings, tmp_path):
    made = data(ClipFolder(str(recordings)), tmp_path, segment_frames=20, batch_size=3)
    batch = next(iter(made.train_dataloader()))
    assert batch.audio.shape == (3, 4000) and batch.mels.shape == (3, 80, 24)
    whole = made.prepared[0]
    mel = padded(whole.mel, 2, -10.0)
    assert mel[:2].unique().tolist() == [-10.0] and mel[2:-2].equal(whole.mel)


def test_bad_clips_are_skipped_counted_and_listed(recordings, tmp_path, capsys):
    table = (recordings / "metadata.csv").read_text()
    silent, cut, nan = (recordings / name for name in ("c0.wav", "c1.wav", "c2.wav"))
    soundfile.write(silent, np.zeros(RATE, "float32"), RATE)
    cut.write_bytes(cut.read_bytes()[:3000])
    soundfile.write(nan, np.full(RATE, np.nan, "float32"), RATE, subtype="FLOAT")
    soundfile.write(recordings / "c3.wav", 3 * np.ones(RATE, "float32"), RATE, subtype="FLOAT")
    soundfile.write(recordings / "extra.wav", 0.1 * np.random.randn(RATE), RATE)
    rows = ["gone.wav,not there", 'c5.wav,"an emoji 🙂"']
    table = table.replace("c5.wav,clip number 5\n", "") + "\n".join(rows) + "\n"
    (recordings / "metadata.csv").write_text(table, encoding="utf-8")
    made = data(ClipFolder(str(recordings)), tmp_path, valid=0, test=0)
    said = capsys.readouterr().out
    assert len(made.prepared) == 1
    for reason in (
        "refused 1: is silent (c0)",
        "refused 1: the file is cut (c1)",
        "refused 1: samples leave [-1, 1] (c3)",
        "refused 1: has NaN or infinite samples (c2)",
        "refused 1: text is empty after normalisation (extra)",
        "refused 1: there is no sound file for it (gone.wav)",
        "refused 1: its text has what cannot be spoken (c5)",
    ):
        assert reason in said


def test_all_clips_bad_is_an_error_with_its_reasons(recordings, tmp_path):
    for path in recordings.glob("*.wav"):
        soundfile.write(path, np.zeros(RATE, "float32"), RATE)
    with pytest.raises(ValueError, match="no clip is of use: 6: is silent"):
        data(ClipFolder(str(recordings)), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": 3, "test": 3}, "6 clips are of use, too few to hold out 3"),
        ({"frames_per_batch": 1}, "0 clips are of use"),
        ({"segment_frames": 900}, "refused 6: shorter than a segment of 900 frames"),
        ({"frames_per_batch": 0}, "frames_per_batch must be at least 1"),
        ({"valid": -1}, "valid must not be negative"),
        ({"segment_pad": -1}, "segment_pad must not be negative, got -1"),
    ],
)
def test_parts_that_cannot_be_made(recordings, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        data(ClipFolder(str(recordings)), tmp_path, **options)


def test_clips_of_other_rates_and_channels_are_said(recordings, tmp_path, capsys):
    samples, _ = soundfile.read(recordings / "c0.wav")
    soundfile.write(recordings / "c0.wav", np.stack([samples, samples], 1), 22050, "PCM_24")
    data(ClipFolder(str(recordings)), tmp_path)
    assert "1 mixed from 2 channels, 1 resampled from 22050 Hz" in capsys.readouterr().out


def test_layouts_of_lj_speech_and_libritts(recordings, tmp_path):
    lj = tmp_path / "lj"
    (lj / "wavs").mkdir(parents=True)
    tts = tmp_path / "tts" / "19" / "198"
    tts.mkdir(parents=True)
    lines = []
    for i in range(4):
        shutil.copy(recordings / f"c{i}.wav", lj / "wavs" / f"a{i}.wav")
        shutil.copy(recordings / f"c{i}.wav", tts / f"19_198_{i}.wav")
        (tts / f"19_198_{i}.normalized.txt").write_text("some words")
        lines.append(f"a{i}|1 word|one word")
    (lj / "metadata.csv").write_text("\n".join(lines))
    assert data(LJSpeech(str(lj)), tmp_path).prepared[0].text == "one word"
    assert data(LibriTTS(str(tmp_path / "tts")), tmp_path).speakers == ["19"]
    (tts / "19_198_0.normalized.txt").write_bytes(b"caf\xe9s")
    [refused] = data(LibriTTS(str(tmp_path / "tts")), tmp_path).prepared.refused.values()
    assert refused == ["19_198_0"]
    (lj / "metadata.csv").write_text("only one cell")
    with pytest.raises(ValueError, match="line 1: not id"):
        data(LJSpeech(str(lj)), tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,text\nc0.wav,a\nc0.wav,b\n", "'c0.wav' stands there twice"),
        ("file,speaker\nc0.wav,a\n", "needs the columns text and file"),
        ("text,file\nonly\n", "row 2: 1 cells of 2"),
        ('file,text\nc0.wav,"a\nc1.wav,b"\n', "line 2: a quotation mark is not closed"),
        ("file,text\nc0.wav,caf\udce9\n", "metadata.csv: is not text in UTF-8"),
    ],
)
def test_tables_that_cannot_be_read(recordings, tmp_path, table, message):
    (recordings / "metadata.csv").write_text(table, errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        data(ClipFolder(str(recordings)), tmp_path)


def test_tables_without_a_heading_and_without_endings(recordings, tmp_path):
    (recordings / "metadata.csv").write_text("".join(f"c{i}\ttext {i}\n" for i in range(6)))
    assert len(data(ClipFolder(str(recordings)), tmp_path).prepared) == 6


def test_files_of_one_name_in_two_folders_are_two_clips(recordings, tmp_path):
    for folder, files in (("a", "012"), ("b", "345")):
        (recordings / folder).mkdir()
        for to, i in enumerate(files):
            (recordings / f"c{i}.wav").rename(recordings / folder / f"{to}.wav")
    rows = [f"{folder}/{i}.wav\tclip {folder} {i}\n" for folder in "ab" for i in range(3)]
    (recordings / "metadata.csv").write_text("".join(rows))
    made = data(ClipFolder(str(recordings)), tmp_path).prepared
    assert {row["name"] for row in made.rows} == {f"{a}/{i}" for a in "ab" for i in range(3)}
    (recordings / "metadata.csv").write_text("0\tclip\n")
    with pytest.raises(ValueError, match=r"'0' may be any of a/0.wav, b/0.wav; name the folder"):
        data(ClipFolder(str(recordings)), tmp_path)


def test_a_missing_folder_or_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        data(ClipFolder(str(tmp_path / "none")), tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(FileNotFoundError, match="no table of transcripts"):
        data(ClipFolder(str(tmp_path)), tmp_path)


def test_the_packaged_clips_are_of_use(tmp_path):
    assert len(data(PackagedClips(), tmp_path).prepared) == 8
