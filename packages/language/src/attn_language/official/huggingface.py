"""LLaMA-family checkpoints in a Hugging Face folder: config.json, safetensors, tokenizer.json."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..models import Decoder
from ..models.transformer import TransformerConfig
from ..tokens import Tokenizer, read_tokenizer
from .keys import renamed, require

FAMILY = ("llama", "mistral", "qwen2")
NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
)  # fmt: skip
TABLE = [
    ("model.embed_tokens.weight", "embed.tokens.weight"),
    ("model.norm.weight", "norm.weight"),
    ("lm_head.weight", "head.weight"),
    ("model.layers.{i}.input_layernorm.weight", "blocks.{i}.norm1.weight"),
    ("model.layers.{i}.post_attention_layernorm.weight", "blocks.{i}.norm2.weight"),
    ("model.layers.{i}.self_attn.o_proj.{p}", "blocks.{i}.mixer.out.{p}"),
    ("model.layers.{i}.self_attn.{x}_proj.{p}", "blocks.{i}.mixer.{x}.{p}"),
    ("model.layers.{i}.mlp.down_proj.{p}", "blocks.{i}.feed_forward.down.{p}"),
    ("model.layers.{i}.mlp.{x}_proj.{p}", "blocks.{i}.feed_forward.{x}.{p}"),
]


def config_from(config: Mapping[str, Any]) -> TransformerConfig:
    """Our configuration from a config.json.

    Raises:
        ValueError: another architecture, or an option that we do not have.
    """
    kind = config.get("model_type")
    if kind not in FAMILY:
        raise ValueError(f"model_type {kind!r} is not supported; there are {', '.join(FAMILY)}")
    missing = [name for name in NEEDED if not isinstance(config.get(name), int)]
    if missing:
        raise ValueError(f"config.json has no number for {', '.join(missing)}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"config.json has no settings of positions, but {rope!r}")
    window, context = config.get("sliding_window"), config.get("max_position_embeddings", 2048)
    if config.get("use_sliding_window", True) and window is not None and window < context:
        raise ValueError(f"sliding_window {window} below the context of {context} is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {config['hidden_act']!r} is not supported; silu is")
    heads, bias = config["num_attention_heads"], config.get("attention_bias", False)
    head_dim = config.get("head_dim") or config["hidden_size"] // max(heads, 1)
    base = config.get("rope_theta") or rope.get("rope_theta", 10000.0)
    return TransformerConfig(
        vocab=config["vocab_size"],
        context=context,
        dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        hidden=config["intermediate_size"],
        positions="rotary",
        rope_base=base,
        rope_factors=rope_factors(rope, base, head_dim // 2, context),
        norm="rms",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        activation="silu",
        gated=True,
        qkv_bias=bias or kind == "qwen2",
        out_bias=bias,
        bias=config.get("mlp_bias", False),
        tied=config.get("tie_word_embeddings", False),
    )


def rope_factors(
    rope: Mapping[str, Any], base: float, pairs: int, context: int
) -> tuple[float, ...] | None:
    """By how much a scaling stretches each wavelength; None where it does not.

    Args:
        rope: the official settings: rope_type "default", "linear" or "llama3", and its numbers.
        base: of the wavelengths.
        pairs: of features of a head.
        context: of the model.

    Raises:
        ValueError: another kind of scaling, or a number is missing.

    Source: Meta, 2024, "The Llama 3 Herd of Models", arXiv 2407.21783, section 3.2: short
        wavelengths stay, long ones are stretched, those between in part.

    Example:
        >>> rope_factors({"rope_type": "linear", "factor": 4.0}, 10000.0, 2, 2048)
        (4.0, 4.0)
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise ValueError(f"rope scaling {kind!r} is not supported; linear and llama3 are")
    needed = ("factor",) if kind == "linear" else ("factor", "low_freq_factor", "high_freq_factor")
    missing = [name for name in needed if not isinstance(rope.get(name), int | float)]
    if missing:
        raise ValueError(f"rope scaling {kind!r} has no number for {', '.join(missing)}")
    factor = float(rope["factor"])
    if kind == "linear":
        return (factor,) * pairs
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    before = rope.get("original_max_position_embeddings", context)
    out = []
    for pair in range(pairs):
        turns = before / (2 * math.pi * base ** (pair / pairs))  # in the context of pre-training
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(1 / (kept + (1 - kept) / factor))
    return tuple(out)


def from_official(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Our state dict; queries, keys and values become one matrix, gate and up another.

    Raises:
        ValueError: keys are missing or unknown.
    """
    state = {name: x for name, x in state.items() if "rotary_emb" not in name}
    if config.tied:
        state.pop("lm_head.weight", None)
    require(state, ["model.embed_tokens.weight", "model.norm.weight"])
    parts = renamed(state, TABLE)
    ours = {n: x for n, x in parts.items() if n.split(".")[-2] not in ("q", "k", "v", "gate", "up")}
    for i in range(config.depth):
        for p in ("weight", "bias"):
            for new, names in (
                ("mixer.qkv", "mixer.{} q k v"),
                ("feed_forward.gate_up", "feed_forward.{} gate up"),
            ):
                template, *pieces = names.split()
                keys = [f"blocks.{i}.{template.format(piece)}.{p}" for piece in pieces]
                if all(key in parts for key in keys):
                    ours[f"blocks.{i}.{new}.{p}"] = torch.cat([parts[key] for key in keys])
                elif p == "weight":
                    raise ValueError(f"missing keys in the checkpoint: {', '.join(keys)}")
    return ours


def to_official(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """The official state dict."""
    out: dict[str, Tensor] = {}
    stored = config.kv_heads or config.heads
    sizes = [n * config.features_per_head for n in (config.heads, stored, stored)]
    for name, x in state.items():
        prefix, _, p = name.rpartition(".")
        if prefix.endswith("mixer.qkv"):
            base = prefix.removesuffix("qkv")
            parts = {f"{base}{k}.{p}": y for k, y in zip("qkv", x.split(sizes), strict=True)}
        elif prefix.endswith("feed_forward.gate_up"):
            base = prefix.removesuffix("gate_up")
            parts = dict(zip((f"{base}gate.{p}", f"{base}up.{p}"), x.chunk(2), strict=True))
        else:
            parts = {name: x}
        out |= renamed(parts, [(ours, theirs) for theirs, ours in TABLE])
    return out


def fill(model: Decoder, state: Callable[[], dict[str, Tensor]], source: str | Path) -> None:
    """Gives a model on "meta" its weights, in float32.

    Args:
        model: without weights.
        state: makes them; shapes that do not fit each other are told as those of the model are.
        source: the file, for messages.

    Raises:
        ValueError: they are not those of the configuration.
    """
    try:
        model.load_state_dict({name: x.float() for name, x in state().items()}, assign=True)
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{source}: the weights do not fit its configuration: {what}") from None


def read_folder(path: str | Path) -> tuple[Decoder, Tokenizer | None]:
    """The model in eval mode and the tokenizer of a folder, None where it holds none.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file cannot be read, or the model is not of the family.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path}: no config.json in the folder")
    try:
        official = json.loads((path / "config.json").read_text())
    except ValueError as error:  # no text, or no JSON
        raise ValueError(f"{path / 'config.json'} cannot be read: {error}") from None
    if not isinstance(official, dict):
        raise ValueError(f"{path / 'config.json'} holds a {type(official).__name__}, no settings")
    config = config_from(official)
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path}: no model.safetensors in the folder")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read: {error}") from None
    with torch.device("meta"):
        model = config.build()
    fill(model, lambda: from_official(state, config), path)
    ends = official.get("eos_token_id")
    ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
    file = path / "tokenizer.json"
    return model.eval(), read_tokenizer(file, ends) if file.is_file() else None
