"""The command line: recipes, a run, its report, text, conversions, and one line for errors."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from attn_language import VARIANTS, cli
from attn_language.loading import load
from core_attn.training.recipes import recipe_files

RECIPES = recipe_files("attn_language")


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["attn-language", *map(str, words)])
    return cli.main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run of a recipe; its best checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code = run(
            patch, "fit", "--config", "topics-bam", "--model.variant", "bam_seed",
            "--model.settings", "{dim: 16, heads: 2, hidden: 24}", "--data.context", 32,
            "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 3,
            "--trainer.limit_val_batches", 2, "--trainer.enable_progress_bar", "false",
            "--trainer.enable_model_summary", "false",
        )  # fmt: skip
    assert code == 0
    return folder / "runs/topics-bam/version_0/best.ckpt"


def test_every_variant_but_the_large_ones_has_a_recipe_without_files():
    used = set()
    for name, path in RECIPES.items():
        recipe = yaml.safe_load(path.read_text())
        if name.startswith("topics-"):
            used.add(recipe["model"]["init_args"]["variant"])
        assert path.read_text().startswith("# ")
        assert recipe["model"]["init_args"]["variant"] in VARIANTS
    assert used == {name for name in VARIANTS if not name.endswith(("216m", "13m", "18m"))}


def test_text_and_report_of_a_run(trained, monkeypatch, capsys):
    assert run(monkeypatch, "generate", "--ckpt", trained, "The ", "--max_tokens", 5) == 0
    told = capsys.readouterr().out
    assert told.startswith("The ") and len(told) == len("The ") + 5 + 1
    assert run(monkeypatch, "report", "--ckpt", trained) == 0
    page = trained.with_name("report.html").read_text()
    assert "Samples" in page and "Attention" in page


def test_a_report_has_the_words_that_weigh_most(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = run(
        monkeypatch, "fit", "--config", "topics-lama", "--trainer.max_epochs", 1,
        "--trainer.limit_train_batches", 2, "--trainer.limit_val_batches", 2,
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    )  # fmt: skip
    assert code == 0
    checkpoint = tmp_path / "runs/topics-lama/version_0/best.ckpt"
    assert run(monkeypatch, "report", "--ckpt", checkpoint) == 0
    page = checkpoint.with_name("report.html").read_text()
    assert "Confusion" in page and "Heaviest words" in page


def test_conversions_of_a_run(trained, monkeypatch, capsys, tmp_path):
    out = tmp_path / "dha.ckpt"
    code = run(
        monkeypatch,
        "convert",
        "dha",
        "--ckpt",
        trained,
        "--out",
        out,
        "--budget",
        0.5,
        "--steps",
        2,
    )
    assert code == 0 and "4 key and value heads of 2 layers are left" in capsys.readouterr().out
    assert load(out)[0].config.cached_heads() == 4
    mixed = tmp_path / "bam.ckpt"
    both = f"{trained},{trained}"
    assert run(monkeypatch, "convert", "bam", "--ckpt", both, "--out", mixed) == 0
    assert "queries copied, all copied" in capsys.readouterr().out
    assert load(mixed)[0].config.experts == 2
    code = run(
        monkeypatch, "fit", "--config", "topics-bam", "--model.weights", mixed,
        "--model.settings", "{dim: 16, heads: 2, hidden: 24, experts: 2}", "--data.context", 32,
        "--trainer.max_steps", 1, "--trainer.limit_val_batches", 1,
        "--trainer.default_root_dir", tmp_path, "--trainer.enable_progress_bar", "false",
    )  # fmt: skip
    assert code == 0
    told = capsys.readouterr().out
    assert "weights taken over" in told and "left as initialized" not in told


@pytest.mark.parametrize(
    "words, message",
    [
        (["generate", "--ckpt", "none.ckpt", "x"], "no such file"),
        (["generate", "--ckpt", "RUN", "日"], "character '日' is not among"),
        (["generate", "--ckpt", "RUN", "a", "--temperature", "-1"], "temperature must be"),
        (["generate", "--ckpt", "RUN", "a" * 99], "prompt of 99 tokens exceeds the context of 32"),
        (
            ["convert", "dha", "--ckpt", "RUN", "--out", "o.ckpt", "--budget", "0.1"],
            "budget must be",
        ),
        (["convert", "bam", "--ckpt", "RUN", "--out", "o.ckpt"], "2 checkpoints or more"),
        (["fit", "--config", "topics-trnsformer"], "topics-transformer"),
        (["fit", "--config", "topics-bam", "--model.variant", "bamm"], "did you mean 'bam'"),
        (["fit", "--config", "topics-bam", "--model.settings", "{dpth: 3}"], "no setting 'dpth'"),
        (["fit", "--config", "topics-bam", "--model.settings", "{depth: two}"], "settings of bam"),
        (["fit", "--config", "text-transformer", "--data.path", "none.txt"], "no such file"),
        (
            ["fit", "--config", "topics-bam", "--data", "attn_language.data.TextData"],
            "data: TextData is abstract; there are Topics, ",
        ),
        (
            ["fit", "--config", "topics-bam", "--data", "TopicParagraphs"],
            "LanguageModel reads TextData, not TopicParagraphs",
        ),
        (
            ["fit", "--config", "topics-lama", "--data", "Topics"],
            "TextClassification reads LabeledText, not Topics",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(trained, monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    words = [str(trained) if word == "RUN" else word for word in words]
    assert run(monkeypatch, *words) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert message in told[-1] and told[-1].startswith("attn-language: ")
    assert len([line for line in told if line.startswith("attn-language")]) == 1


def test_centroids_from_data_are_there_before_the_first_validation(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = run(
        monkeypatch, "fit", "--config", "topics-routing-port", "--model.settings",
        "{dim: 16, heads: 2, local_heads: 1, window: 8}", "--data.context", 32,
        "--trainer.max_steps", 1, "--trainer.limit_val_batches", 1,
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    )  # fmt: skip
    assert code == 0


def test_resumed_runs_end_in_the_same_bits(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    common = [
        "--config", "topics-routing", "--model.settings",
        "{dim: 16, heads: 2, local_heads: 1, window: 8, local_window: 8}", "--data.context", 32,
        "--trainer.limit_train_batches", 3, "--trainer.limit_val_batches", 1,
        "--model.final_lr", 3e-3,  # else the cosine is over the steps that a run is planned for
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    ]  # fmt: skip
    assert run(monkeypatch, "fit", *common, "--trainer.max_epochs", 2) == 0
    assert run(monkeypatch, "fit", *common, "--trainer.max_epochs", 1,
               "--trainer.default_root_dir", "half") == 0  # fmt: skip
    last = Path("half/topics-routing/version_0/last.ckpt")
    assert run(monkeypatch, "fit", "--ckpt_path", last, "--trainer.max_epochs", 2) == 0
    whole = Path("runs/topics-routing/version_0/last.ckpt")
    ours, theirs = (torch.load(p, weights_only=True)["state_dict"] for p in (last, whole))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert any("ema_means" in name for name in ours)
