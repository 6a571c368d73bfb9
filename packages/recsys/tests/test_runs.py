from core_attn.testing.runs import assert_resumes_exactly

SHORT = (
    *("--config", "synthetic-autoint", "--data.rows", "2000", "--data.batch_size", "128"),
    *("--model.config.block_widths", "[8]", "--model.config.embedding_dropout", "0.2"),
    *("--data.folder", "data", "--trainer.max_epochs", "2"),
)


def test_a_killed_run_resumes_to_identical_numbers_in_any_process(tmp_path):
    assert_resumes_exactly("attn_recsys", SHORT, tmp_path, kill_after=52)
