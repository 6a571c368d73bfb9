from core_attn.testing.runs import assert_resumes_exactly, assert_two_processes_learn_as_one

SHORT = (
    *("--config", "digits-deit-tiny", "--model.settings.depth", "1", "--trainer.max_epochs", "2"),
)


def test_a_killed_run_resumes_to_identical_numbers_in_any_process(tmp_path):
    words = (*SHORT, "--data.batch_size", "128")
    assert_resumes_exactly("attn_vision", words, tmp_path, kill_after=8)


def test_two_processes_train_as_one(tmp_path):
    words = (*SHORT, "--model.mixup", "0", "--trainer.limit_train_batches", "4")
    assert_two_processes_learn_as_one("attn_vision", words, tmp_path, batch_size=64)
