"""Runs of the real task: the same bits killed and resumed, the same curve in two processes."""

from core_attn.testing.runs import assert_resumes_exactly, assert_two_processes_learn_as_one

SHORT = (
    "--data.context", "32", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "5",
    "--trainer.limit_val_batches", "1", "--trainer.enable_model_summary", "false",
)  # fmt: skip
ROUTING = (
    "--config", "topics-routing", "--model.settings",
    "{dim: 16, heads: 2, local_heads: 1, window: 8, local_window: 8}", *SHORT,
)  # fmt: skip


def test_a_killed_run_resumes_exactly(tmp_path):
    assert_resumes_exactly("attn_language", ROUTING, tmp_path, kill_after=8)


def test_two_processes_learn_as_one(tmp_path):
    """Centroids included, whose counts and sums are added up over the processes."""
    assert_two_processes_learn_as_one("attn_language", ROUTING, tmp_path, batch_size=8)


def test_two_processes_balance_experts_as_one(tmp_path):
    """The shares of the experts are those of all processes."""
    settings = "{dim: 16, heads: 2, hidden: 32}"
    words = ("--config", "topics-bam", "--model.settings", settings, *SHORT)
    assert_two_processes_learn_as_one("attn_language", words, tmp_path, batch_size=8)
