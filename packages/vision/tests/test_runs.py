from core_attn.testing.runs import assert_resumes_exactly

SHORT = (
    *("--config", "digits-deit-tiny", "--model.settings.depth", "1", "--trainer.max_epochs", "2"),
    *("--data.batch_size", "128"),
)


def test_a_killed_run_resumes_to_identical_numbers_in_any_process(tmp_path):
    assert_resumes_exactly("attn_vision", SHORT, tmp_path, kill_after=8)
