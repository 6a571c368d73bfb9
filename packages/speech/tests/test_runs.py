"""Runs of the real tasks: killed and resumed, in two processes."""

import yaml

from core_attn.testing.runs import assert_resumes_exactly, assert_two_processes_learn_as_one

SPEAKS = {
    "class_path": "SpeechSynthesis",
    "init_args": {
        "config": {
            "embed_dim": 8, "dim": 8, "heads": 2, "encoder_depth": 1, "decoder_depth": 1,
            "encoder_hidden": 8, "decoder_hidden": 8, "encoder_prenet_dim": 8,
            "decoder_prenet_dim": 8, "postnet_dim": 8, "reduction": 4,
        },
        "loss": {"guided": ["encoder-decoder"]},
        "own_frames": 0.5,
    },
}  # fmt: skip
DRAWS = {
    "class_path": "Vocoding",
    "init_args": {
        "config": {
            "layers": 2, "stacks": 1, "residual": 4, "gate": 8, "skip": 4, "scales": [5, 40],
            "pad": 1, "dropout": 0.0,
        },
    },
}  # fmt: skip


def recipe(path, recordings, model, **options):
    source = {"class_path": "ClipFolder", "init_args": {"root": str(recordings)}}
    data = {"source": source, "front_end": "characters", "valid": 1, "test": 1, **options}
    data["cache"] = str(path.parent / "cache")
    content = {"model": model, "data": {"class_path": "SpeechData", "init_args": data}}
    path.write_text(yaml.safe_dump({**content, "trainer": {"max_epochs": 3}}))
    return ["--config", str(path)]


def test_a_synthesizer_killed_at_any_step_continues_to_the_same_numbers(recordings, tmp_path):
    words = recipe(tmp_path / "speaks.yaml", recordings, SPEAKS, frames_per_batch=100)
    assert_resumes_exactly("attn_speech", words, tmp_path, kill_after=7)


def test_two_processes_train_a_vocoder_as_one_does(recordings, tmp_path):
    words = recipe(tmp_path / "draws.yaml", recordings, DRAWS, segment_frames=10, segment_pad=1)
    assert_two_processes_learn_as_one("attn_speech", words, tmp_path, batch_size=4, atol=1e-4)
