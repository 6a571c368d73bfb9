"""What a user can get wrong in a configuration: refused by name, with the value and the limit."""

import json

import pytest

from attn_language import VARIANTS, create
from attn_language.conversion import convert
from attn_language.data import TopicParagraphs
from attn_language.generation import generate
from attn_language.models.decoder import LEAST, DecoderConfig
from attn_language.models.lama import LamaConfig
from attn_language.official import huggingface
from attn_language.speed import measure
from attn_language.tasks import LanguageModel, TextClassification
from attn_language.tokens import Learned


@pytest.mark.parametrize(
    "name", [n for n, c in VARIANTS.items() if isinstance(c, DecoderConfig | LamaConfig)]
)
def test_counts_and_weights_below_their_least_are_refused(name):
    for field in LEAST.keys() & vars(VARIANTS[name]).keys():
        with pytest.raises(ValueError, match=rf"{field} must be at least {LEAST[field]}, got -3"):
            create(name, **{field: -3})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"lr": 0.0}, "lr must be above 0, got 0"),
        ({"final_lr": -1.0}, "final_lr must be at least 0, got -1"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"betas": (0.9, 1.0)}, r"betas must be 2 in \[0, 1\), got \(0.9, 1.0\)"),
        ({"eps": -1.0}, "eps must be at least 0, got -1"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1"),
        ({"settings": {"vocab": 3}}, "vocab comes from the data"),
    ],
)
def test_training_with_numbers_out_of_range(settings, message):
    for task in (LanguageModel, TextClassification):
        with pytest.raises(ValueError, match=message):
            task(**settings)


@pytest.mark.parametrize(
    "trunk, message",
    [
        (3, "trunk must be settings, got 3"),
        ({"dpth": 3}, "settings of the trunk of encoder_classifier: .*dpth"),
        ({"depth": "two"}, "settings of the trunk of encoder_classifier: .*depth"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_settings_of_a_trunk(trunk, message):
    with pytest.raises(ValueError, match=message):
        TextClassification("encoder_classifier", {"trunk": trunk})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: TopicParagraphs(topics=1), "topics must be at least 2, got 1"),
        (lambda: TopicParagraphs(longest=0), "longest must be at least 1, got 0"),
        (lambda: Learned.words(["a b"], vocab=1), "vocab of words must be at least 2, got 1"),
        (lambda: measure(0), "threads must be at least 1, got 0"),
        (lambda: next(convert("dha", ["a.ckpt"], "o.ckpt", steps=-1)), "steps must be at least 0"),
        (lambda: create("bam", causal=False), "a mixture's attention is causal"),
        (lambda: create("spikegpt", threshold=0.0), "threshold must be above 0, got 0"),
        (lambda: create("lama", dropout=1.0), r"dropout must be in \[0, 1\), got 1"),
        (lambda: create("lama", pool="max"), "pool must be 'lama' or 'mean', got 'max'"),
        (lambda: create("routing", decay=1.0), r"decay must be in \[0, 1\), got 1"),
        (lambda: generate(create("mha"), [[1]], 1, seed=2**63), r"seed must be in \[0, 2\^63\)"),
        (
            lambda: generate(create("mha"), [[1]], 1, seed=-1),
            r"seed must be in \[0, 2\^63\), got -1",
        ),
        (lambda: huggingface.config_from({"model_type": "llama"}), "no number for vocab_size, hid"),
    ],
)
def test_values_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "content, message", [(b"[1, 2]", "holds a list"), (b"\xff\xfe{", "cannot be read")]
)
def test_a_folder_whose_settings_are_none(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        huggingface.read_folder(tmp_path)


def test_a_checkpoint_of_other_data():
    task = LanguageModel()
    tokenizer = Learned.words(["a b c a b c"], 4)
    task._build(tokenizer, {"vocab": 4, "context": 8})
    other = LanguageModel()
    other._build(tokenizer, {"vocab": 4, "context": 9})
    held = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(held)
    held = {**held, "tokenizer": json.loads(json.dumps(held["tokenizer"]))}
    with pytest.raises(ValueError, match=r"'context': 8\}, the data have .*'context': 9"):
        other.on_load_checkpoint(held)
    other._build(Learned.words(["x y z x y z"], 4), {"vocab": 4, "context": 8})
    with pytest.raises(ValueError, match="the data have another tokenizer, of 4 ids, than the ch"):
        other.on_load_checkpoint(held)
