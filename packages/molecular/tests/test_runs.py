"""Runs of the recipe that needs no data: resumed, fine-tuned, direct before gradient."""

import torch

from attn_molecular import load_potential
from attn_molecular.tasks import PotentialTraining
from core_attn.testing.runs import assert_resumes_exactly, only_run, train_here

SETTINGS = "smooth_order: true, dim: 16, heads: 2, frequencies: [4, 2, 2], neighbors: 6"
SMALL = (
    "--config", "emt-escaip", "--model.settings", f"{{{SETTINGS}, distance_dim: 8}}",
    "--data.frames", "24", "--data.batch_size", "4", "--data.symbols", "[Cu]",
    "--trainer.enable_model_summary", "false",
)  # fmt: skip


def short_run(folder, *words):
    """The last checkpoint of two steps."""
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.num_sanity_val_steps", "0")
    train_here(
        "attn_molecular", ("fit", *SMALL, *quiet, "--trainer.max_steps", "2", *words), folder
    )
    return only_run(folder) / "last.ckpt"


def test_a_killed_run_resumes_bit_by_bit(tmp_path):
    words = (*SMALL, "--trainer.max_epochs", "2")
    assert_resumes_exactly("attn_molecular", words, tmp_path, kill_after=8)


def test_fine_tuning_says_how_good_the_start_is_and_what_is_new(tmp_path, capsys):
    first = short_run(tmp_path / "first")
    capsys.readouterr()
    words = ("--model.weights", str(first), "--data.symbols", "[Cu, Ni]", "--model.lr", "1e-9")
    tuned = short_run(tmp_path / "second", *words)
    first = first.rename(tmp_path / "elsewhere.ckpt")  # what was made of it needs it no more
    second = load_potential(tuned)
    said = capsys.readouterr().out
    assert "references fitted anew; elements it has not seen: Ni" in said
    assert "before the first step: loss" in said and "forces_mae" in said
    start = load_potential(first)
    assert second.symbols == ["Ni", "Cu"] and start.symbols == ["Cu"]
    assert second.references[28] != 0 and second.scale == start.scale
    for name, weight in start.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], weight, atol=1e-6, rtol=0)


def test_a_direct_model_starts_a_gradient_one(tmp_path):
    direct = load_potential(
        short_run(tmp_path, "--model.forces", "direct", "--model.stress_weight", "0")
    )
    task = PotentialTraining(weights=str(only_run(tmp_path) / "last.ckpt"), stress_weight=1.0)
    task.start_from(task.weights)
    network = task.potential.network
    assert network.config.forces == "gradient" and direct.network.config.forces == "direct"
    shared = [
        name for name, _ in network.named_parameters() if name.startswith("blocks.0.attention")
    ]
    assert shared
    for name in shared:
        assert torch.equal(network.state_dict()[name], direct.network.state_dict()[name])
