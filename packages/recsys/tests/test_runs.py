import pytest

from attn_recsys.optim import for_processes
from core_attn.testing.runs import assert_resumes_exactly, assert_two_processes_learn_as_one

SHORT = (
    *("--config", "synthetic-autoint", "--data.rows", "2000", "--data.folder", "data"),
    *("--model.config.block_widths", "[8]"),
)


def test_a_killed_run_resumes_to_identical_numbers_in_any_process(tmp_path):
    words = (
        *(*SHORT, "--data.batch_size", "128", "--trainer.max_epochs", "2"),
        *("--model.config.embedding_dropout", "0.2"),
    )
    assert_resumes_exactly("attn_recsys", words, tmp_path, kill_after=52)


def test_two_processes_learn_as_one_does_at_equal_global_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_RECSYS_CACHE", str(tmp_path))
    words = (*SHORT[:4], "--data.drop_last", "true", *SHORT[6:], "--trainer.max_epochs", "1")
    assert_two_processes_learn_as_one("attn_recsys", words, tmp_path, batch_size=64, atol=1e-4)


@pytest.mark.parametrize("name", ["lazy_adam", "row_adagrad"])
def test_an_optimizer_for_one_process_says_so(name):
    with pytest.raises(ValueError, match=f"optimizer {name} is for one process; with several take"):
        for_processes(name)
