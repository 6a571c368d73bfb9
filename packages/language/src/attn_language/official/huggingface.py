"""LLaMA-family checkpoints in a Hugging Face folder: config.json, safetensors, tokenizer.json."""

import json
from collections.abc import Mapping
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

FAMILY = ("llama", "mistral")
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
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        raise ValueError(f"rope scaling {scaling!r} is not supported")
    window, context = config.get("sliding_window"), config.get("max_position_embeddings", 2048)
    if window is not None and window < context:
        raise ValueError(f"sliding_window {window} below the context of {context} is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {config['hidden_act']!r} is not supported; silu is")
    heads = config["num_attention_heads"]
    return TransformerConfig(
        vocab=config["vocab_size"],
        context=context,
        dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        hidden=config["intermediate_size"],
        positions="rotary",
        rope_base=config.get("rope_theta") or rope.get("rope_theta", 10000.0),
        norm="rms",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        activation="silu",
        gated=True,
        qkv_bias=config.get("attention_bias", False),
        out_bias=config.get("attention_bias", False),
        bias=config.get("mlp_bias", False),
        tied=config.get("tie_word_embeddings", False),
    )


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
    except json.JSONDecodeError as error:
        raise ValueError(f"{path / 'config.json'} cannot be read: {error}") from None
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
    ours = {name: x.float() for name, x in from_official(state, config).items()}
    model.load_state_dict(ours, assign=True)
    has_tokenizer = (path / "tokenizer.json").is_file()
    return model.eval(), read_tokenizer(path / "tokenizer.json") if has_tokenizer else None
