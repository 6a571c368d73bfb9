import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from attn_speech.cli import main
from attn_speech.voice import load
from core_attn.training import opened
from core_attn.training.recipes import recipe_files

TINY = {
    "model": {
        "class_path": "SpeechSynthesis",
        "init_args": {
            "config": {
                "embed_dim": 16, "dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1,
                "encoder_hidden": 16, "decoder_hidden": 16, "encoder_prenet_dim": 16,
                "decoder_prenet_dim": 8, "postnet_dim": 16, "reduction": 4,
            },
            "loss": {"guided": ["encoder-decoder"]},
            "falling": "cosine",
            "listen": False,
            "max_ratio": 2.0,
        },
    },
    "data": {
        "class_path": "SpeechData",
        "init_args": {"front_end": "characters", "frames_per_batch": 400, "valid": 1, "test": 1},
    },
    "trainer": {"max_epochs": 1},
}  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*words):
        capsys.readouterr()
        code = main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def training(tmp_path_factory, shared_recordings):
    """A folder in which a tiny voice was trained."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "tiny.yaml").write_text(recipe(shared_recordings))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert main(["fit", "--config", "tiny.yaml"]) == 0
    return folder


@pytest.fixture
def trained(training, tmp_path):
    """The checkpoint of the tiny voice, and its recipe, copied to the folder of a test."""
    for name in ("runs", "cache"):
        shutil.copytree(training / name, tmp_path / name)
    shutil.copy(training / "tiny.yaml", tmp_path)
    return tmp_path / "runs" / "tiny" / "version_0" / "best.ckpt"


def recipe(recordings, **data):
    """The tiny recipe for some recordings, with other options of the data."""
    config = yaml.safe_load(yaml.safe_dump(TINY))
    source = {"class_path": "ClipFolder", "init_args": {"root": str(recordings)}}
    config["data"]["init_args"] |= {"source": source, **data}
    return yaml.safe_dump(config)


def test_a_voice_keeps_the_dictionary_of_its_training(run, tmp_path, shared_recordings):
    words = tmp_path / "words.txt"
    words.write_text("attn\tə t ˈɛ n\nnox\tn ˈɑ k s\n", "utf-8")
    given = {"front_end": "english", "dictionary": str(words)}
    (tmp_path / "tiny.yaml").write_text(recipe(shared_recordings, **given))
    assert run("fit", "--config", "tiny.yaml")[0] == 0
    words.unlink()
    ckpt = tmp_path / "runs" / "tiny" / "version_0" / "best.ckpt"
    voice = load(ckpt, dictionary={"nox": "n ˈɔ k s"})  # of two pronunciations the new one
    assert voice.front_end.pronounce(["attn", "nox"]) == ["ə t ˈɛ n".split(), "n ˈɔ k s".split()]


def test_from_recordings_to_sound_and_a_report(run, trained, tmp_path):
    code, out, err = run("say", "hello", "out there", "--ckpt", str(trained), "-o", "a.wav")
    assert code in (0, 3) and re.search(r"a.wav: [0-9.]+ s of sound; .*real-time factor", out)
    assert (code == 3) == ("skipped" in err or "limit" in err or "repeated" in err)
    assert soundfile.info("a.wav").samplerate == 16000
    first = (tmp_path / "a.wav").read_bytes()
    run("say", "--ckpt", str(trained), "hello out there", "-o", "a.wav", "--silence", "0.3")
    assert (tmp_path / "a.wav").read_bytes() == first

    code, out, err = run("say", "-2 to", "--ckpt", str(trained), "--seed", "9" * 30, "-o", "b.wav")
    assert code in (0, 3) and "b.wav: " in out, err

    (tmp_path / "lines.txt").write_text("one|first line\n\ntwo|\nthree|third 🙂\none|again\n")
    code, out, err = run(
        "predict", "--ckpt", str(trained), "--input", "lines.txt", "--output", "said"
    )
    assert code == 0 and "2 of 4 texts spoken" in out and "line 3: text is empty" in err
    assert "line 5: the name 'one' stands there twice" in err
    rows = (tmp_path / "said" / "spoken.tsv").read_text().splitlines()
    assert len(rows) == 5 and "'🙂' at 6" in rows[3]
    assert {p.name for p in (tmp_path / "said").glob("*.wav")} == {"one.wav", "three.wav"}

    code, out, _ = run("test", "--ckpt", str(trained))
    for name in (
        "mel_l1",
        "free_mel_l1_dtw",
        "mcd_dtw",
        "stop_error",
        "stopped",
        "focus",
        "band",
        "monotonic",
    ):
        assert f"test/{name}" in out
    assert run("validate", "--ckpt", str(trained))[0] == 0
    code, _, err = run("report", "--ckpt", str(trained))
    assert code == 0, err
    page = (trained.parent / "report.html").read_text()
    assert page.count("<audio controls") == 3 and "Attention: “" in page
    assert any((trained.parent / "alignments").glob("*.png"))
    assert any((trained.parent / "report").glob("*.wav"))
    code, out, err = run("export", "--ckpt", str(trained), "--format", "torch")
    assert code == 0 and "at batch sizes 1, 2, 5" in out, err


@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
def test_mixed_precision_trains_draws_its_alignment_and_is_judged(run, trained):
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx, extra asr")
    bf16 = ("--trainer.precision", "bf16-mixed")
    code, _, err = run("fit", "--config", "tiny.yaml", *bf16)
    assert code == 0, err
    assert any(Path("runs/tiny/version_1/alignments").glob("*.png"))
    code, out, err = run("test", "--ckpt", str(trained), *bf16, "--model.listen", "true")
    assert code == 0 and "test/word_error_rate" in out, err


def test_a_checkpoint_knows_its_symbols_and_features(trained):
    task = opened(trained).task
    assert task.symbols.front_end == "characters" and task.longest > 10
    assert len(task.features.mean) == 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["", "-o", "a.wav"], "text is empty after normalisation"),
        (["日本語", "-o", "a.wav"], "nothing in it can be spoken: '日本語' at 0"),
        (["hi", "-o", "a.wav", "--input", "b.txt"], "the text or --input, not both"),
        (["--input", "none.txt", "-o", "a.wav"], "none.txt: no such file"),
        (["hi", "-o", "a.wav", "--speaker", "eve"], "has one voice only"),
        (["hi", "-o", "a.wav", "--silence", "-1"], "silence must not be negative"),
        (["hi", "-o", "a.wav", "--window", "[-1, 4]"], "back and ahead by 0 or more, got -1, 4"),
    ],
)
def test_say_refuses_in_one_line(run, trained, words, message):
    Path("a.wav").write_text("of before")
    code, _, err = run("say", *words, "--ckpt", str(trained))
    assert code == 2 and message in err and err.count("\n") == 1
    assert Path("a.wav").read_text() == "of before"


def test_a_missing_checkpoint_and_a_vocoder_in_its_place(run, trained):
    code, _, err = run("say", "hi", "--ckpt", "none.ckpt", "-o", "a.wav")
    assert code == 2 and "none.ckpt: no such file" in err
    code, _, err = run(
        "say", "hi", "--ckpt", str(trained), "-o", "a.wav", "--vocoder", str(trained)
    )
    assert code == 2 and "is not that of a vocoder, but SpeechSynthesis" in err


def test_weights_start_a_new_run_and_another_table_is_refused(run, trained):
    code, out, err = run("fit", "--config", "tiny.yaml", "--model.weights", str(trained))
    assert code == 0 and "best.ckpt" in out and "weights taken over" in out, err
    code, _, err = run(
        "fit", "--ckpt_path", str(trained), "--data.front_end", "english",
        "--trainer.max_epochs", "2",
    )  # fmt: skip
    assert code == 2 and "symbols of 'characters'" in err


def test_clips_shorter_than_the_reduction_are_left_out(run, recordings, tmp_path):
    (tmp_path / "tiny.yaml").write_text(recipe(recordings, valid=0, test=0))
    words = ("fit", "--config", "tiny.yaml", "--model.config.reduction")
    code, out, err = run(*words, "60")
    assert code == 0 and "refused 1: fewer frames than reduction 60 (c0)" in out, err
    code, _, err = run(*words, "300")
    assert code == 2 and err.count("\n") == 1 and "no clip is left to train on" in err


def test_only_bad_clips_end_with_code_2(run, recordings, tmp_path):
    for path in recordings.glob("*.wav"):
        path.write_bytes(b"")
    (tmp_path / "tiny.yaml").write_text(recipe(recordings))
    code, _, err = run("fit", "--config", "tiny.yaml")
    assert code == 2 and "no clip is of use: 6: the file is empty" in err


def test_wavenet_from_recordings_to_a_vocoder(run, trained, recordings, tmp_path):
    config = {
        "model": {
            "class_path": "Vocoding",
            "init_args": {
                "config": {
                    "layers": 2, "stacks": 1, "residual": 4, "gate": 8, "skip": 4,
                    "scales": [5, 40], "pad": 1,
                },
                "averaging": 0.9,
            },
        },
        "data": {
            "class_path": "SpeechData",
            "init_args": {
                "source": {"class_path": "ClipFolder", "init_args": {"root": str(recordings)}},
                "front_end": "characters", "segment_frames": 10, "segment_pad": 1, "valid": 1,
                "test": 1,
            },
        },
        "trainer": {"max_epochs": 1},
    }  # fmt: skip
    (tmp_path / "wn.yaml").write_text(yaml.safe_dump(config))
    code, _, err = run("fit", "--config", "wn.yaml")
    assert code == 0, err
    vocoder = tmp_path / "runs" / "wn" / "version_0" / "best.ckpt"
    code, _, err = run(
        "say", "a b", "--ckpt", str(trained), "--vocoder", str(vocoder), "-o", "v.wav"
    )
    assert code in (0, 3), err
    assert soundfile.info("v.wav").frames > 0
    code, out, err = run("test", "--ckpt", str(vocoder))
    for name in ("loss_of_other_mels", "mel_l1_wavenet", "mel_l1_griffin-lim"):
        assert f"test/{name}" in out, err
    np.save(recordings / "mel.npy", np.full((5, 80), -4.0))
    np.save(recordings / "other.npy", np.zeros((5, 70)))
    words = ("predict", "--ckpt", str(vocoder), "--input", str(recordings), "--output", "drawn")
    code, out, err = run(*words)
    assert code == 0 and "drawn/: 7 of 8 files" in out and "other.npy: log mels must be" in err
    assert soundfile.info("drawn/mel.wav").frames == 5 * 200
    assert soundfile.info("drawn/c5.wav").samplerate == 16000
    code, _, err = run(*words, "--vocoder", str(vocoder))
    assert code == 2 and "is of Vocoding, which takes no vocoder" in err
    code, _, err = run("fit", "--config", "wn.yaml", "--data.segment_pad", "2")
    assert code == 2 and "data.segment_pad 1" in err
    qrnn = ("--model.config.conditioning", "qrnn", "--model.config.scales", "[200]")
    code, _, err = run("fit", "--config", "wn.yaml", *qrnn, "--data.segment_pad", "0")
    assert code == 0, err
    vocoder = tmp_path / "runs" / "wn" / "version_1" / "best.ckpt"
    say = ("say", "a b", "--ckpt", str(trained), "--vocoder", str(vocoder), "-o", "v.wav")
    assert run(*say)[0] in (0, 3)
    code, _, err = run("fit", "--config", "wn.yaml", "--data.features.hop", "160")
    assert code == 2 and "multiply to 200, the hop of the mels is 160" in err


@pytest.mark.parametrize("name", recipe_files("attn_speech"))
def test_every_recipe_is_understood_and_says_what_it_trains(run, name):
    code, _, err = run("fit", "--config", name, "--print_config")
    assert code == 0, err
    assert recipe_files("attn_speech")[name].read_text().startswith("# ")


def test_bench_compares_ways_of_decoding(run):
    code, out, _ = run("bench", "--frames", "8", "--repeats", "1")
    assert code == 0 and "x uncached" in out and "x one by one" in out


def test_classifier_of_digits_is_reported_with_its_importance(run, tmp_path, recordings):
    pytest.importorskip("py_nanotts", reason="needs py-nanotts, extra corpus")
    code, _, err = run("fit", "--config", "digits-gaam", "--trainer.max_epochs", "1")
    assert code == 0, err
    ckpt = str(tmp_path / "runs" / "digits-gaam" / "version_0" / "best.ckpt")
    code, out, _ = run("test", "--ckpt", ckpt)
    assert "test/average_recall" in out
    assert run("report", "--ckpt", ckpt)[0] == 0
    assert (tmp_path / "runs/digits-gaam/version_0/report/importance-factor.csv").exists()
    assert run("export", "--ckpt", ckpt, "--format", "torch")[0] == 0
    (recordings / "c0.wav").write_bytes(b"")
    words = ("predict", "--ckpt", ckpt, "--output", "said", "--input")
    code, out, err = run(*words, str(recordings))
    assert code == 0 and "5 of 6 files; 5 resampled from 16000 Hz" in out, err
    assert "c0.wav: the file is empty" in err
    with Path("said/classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    shares = [float(value) for key, value in rows[0].items() if key.startswith("p(")]
    assert len(rows) == 5 and len(shares) == 10 and sum(shares) == pytest.approx(1, abs=1e-4)
    assert rows[0]["class"] == max(rows[0], key=lambda key: float(rows[0][key])
                                   if key.startswith("p(") else -1)[2:-1]  # fmt: skip
    assert run(*words, str(recordings / "c0.wav"))[0] == 2
    assert run(*words, "none")[0] == 2
    code, _, err = run("fit", "--config", "digits-gaam", "--model.config.heads", "7")
    assert code == 2 and "model.config: tokens 24 is not divisible by heads 7" in err
