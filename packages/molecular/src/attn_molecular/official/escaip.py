"""Official state dicts of both releases of EScAIP, and back."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..models import BaseConfig, EScAIPConfig, EScAIPV1Config

# official key with {i} for numbers -> ours; a trailing dot stands for weight and bias
EMBEDDINGS = {
    "edge_distance_embedding.0.": "attributes.distance.",
    "source_direction_embedding.0.": "attributes.source_order.",
    "source_atomic_embedding.": "attributes.source_atom.",
    "target_direction_embedding.0.": "attributes.target_order.",
    "target_atomic_embedding.": "attributes.target_atom.",
}


def _feed_forward(official: str, ours: str) -> dict[str, str]:
    return {f"{official}.0.0.": f"{ours}.up.", f"{official}.1.0.": f"{ours}.down."}


def _head(official: str, ours: str) -> dict[str, str]:
    parts = _feed_forward(f"{official}.ffn", f"{ours}.ffn")
    return parts | {f"{official}.final_output.0.": f"{ours}.out."}


def _embeddings(official: str, ours: str) -> dict[str, str]:
    return {official + a: ours + b for a, b in EMBEDDINGS.items()}


SHARED = {
    **_embeddings("input_block.input_layer.", "input."),
    **_feed_forward("input_block.input_layer.edge_ffn", "input.ffn"),
    **_feed_forward("transformer_blocks.{}.feedforward.mlp_node", "blocks.{}.node_ffn.ffn"),
    **_feed_forward("transformer_blocks.{}.feedforward.mlp_edge", "blocks.{}.edge_ffn.ffn"),
    "output_projection.node_projection.0.": "projection.linear.node.",
    "output_projection.edge_projection.0.": "projection.linear.edge.",
    **_head("energy_layer", "energy_head"),
    **_head("force_direction_layer", "force_head.direction"),
    **_head("force_magnitude_layer", "force_head.magnitude"),
}
V2 = SHARED | {
    "input_block.input_layer.edge_attr_linear.0.": "input.attributes.linear.",
    "input_block.input_layer.edge_attr_norm.": "input.norm.",
    "input_block.norm_node.": "input.node_norm.",
    "input_block.norm_edge.": "input.edge_norm.",
    **_embeddings("transformer_blocks.{}.graph_attention.", "blocks.{}.attention."),
    **{
        f"transformer_blocks.{{}}.graph_attention.{a}": f"blocks.{{}}.attention.{b}"
        for a, b in {
            "edge_attr_linear.0.": "attributes.linear.",
            "edge_attr_norm.": "attributes_norm.",
            "node_hidden_linear.0.": "nodes.linear.",
            "edge_hidden_linear.0.": "edges.",
            "message_norm.": "message_norm.",
            "message_linear.0.": "message.",
            "gate_linear.0.": "gate.",
            "candidate_linear.0.": "candidate.",
            "attn_in_proj_q.": "q.",
            "attn_in_proj_k.": "k.",
            "attn_in_proj_v.": "v.",
            "attn_out_proj.": "out.",
            "attn_scalar": "angle.weight",
            "attn_distance_embedding.0.": "angle.distance.",
            "attn_angle_embedding.0.": "angle.angle.",
            "attn_bias_projection.0.": "angle.out.",
            "attn_weight": "weight",
        }.items()
    },
    "transformer_blocks.{}.norm_attn_node.": "blocks.{}.node_norm.",
    "transformer_blocks.{}.norm_attn_edge.": "blocks.{}.edge_norm.",
    "transformer_blocks.{}.norm_ffn_node.": "blocks.{}.node_ffn.norm.",
    "transformer_blocks.{}.norm_ffn_edge.": "blocks.{}.edge_ffn.norm.",
    **{
        key: value
        for a, b in {"node": "node", "edge": "edge"}.items()
        for key, value in {
            **_feed_forward(f"readout_layers.{{}}.{a}_ffn", f"readouts.{{}}.{b}.ffn"),
            f"readout_layers.{{}}.pre_{a}_norm.": f"readouts.{{}}.{b}.norm.",
            f"output_projection.output_norm_{a}.": f"projection.norm.{b}.",
        }.items()
    },
    **_feed_forward("readout_layers.{}.global_ffn", "whole.readouts.{}.ffn"),
    "readout_layers.{}.pre_global_norm.": "whole.readouts.{}.norm.",
    "output_projection.global_projection.0.": "whole.linear.",
    "output_projection.output_norm_global.": "whole.norm.",
    "node_norm.": "energy_head.norm.",  # of the head with an energy layer; see _head_key
}
V1 = SHARED | {
    "input_block.input_layer.edge_linear.0.": "input.attributes.linear.",
    "input_block.input_layer.norm.": "input.norm.",
    "input_block.norm.node_norm.": "input.node_norm.",
    "input_block.norm.edge_norm.": "input.edge_norm.",
    **_embeddings("transformer_blocks.{}.graph_attention.", "blocks.{}."),
    **{
        f"transformer_blocks.{{}}.graph_attention.{a}": f"blocks.{{}}.{b}"
        for a, b in {
            "edge_linear.0.": "attributes.linear.",
            "node_linear.0.": "nodes.linear.",
            "message_linear.0.": "message.",
            "multi_head_attention.out_proj.": "out.",
            "attn_scalar": "angle.weight",
        }.items()
    },
    "transformer_blocks.{}.norm_attn.": "blocks.{}.norm.",
    "transformer_blocks.{}.norm_ffn.node_norm.": "blocks.{}.node_ffn.norm.",
    "transformer_blocks.{}.norm_ffn.edge_norm.": "blocks.{}.edge_ffn.norm.",
    **_feed_forward("readout_layers.{}.energy_ffn", "readouts.{}.node.ffn"),
    **_feed_forward("readout_layers.{}.force_ffn", "readouts.{}.edge.ffn"),
    "readout_layers.{}.energy_norm.": "readouts.{}.node.norm.",
    "readout_layers.{}.force_norm.": "readouts.{}.edge.norm.",
    **{
        f"output_projection.{a}.{b}_norm.": f"projection.{ours}.{b}."
        for a, ours in {"readout_norm": "readout_norm", "output_norm": "norm"}.items()
        for b in ("node", "edge")
    },
    **_head("scalar_layer", "stress_head.scalar"),
    **_head("irreps2_layer", "stress_head.rank2"),
}
PACKED = "multi_head_attention.in_proj_"
NAMES = {
    "hidden_size": "dim", "num_layers": "depth", "atten_num_heads": "heads",
    "max_num_elements": "elements", "max_radius": "cutoff", "activation": "activation",
    "atom_embedding_size": "atom_dim", "node_direction_expansion_size": "order_size",
    "node_direction_embedding_size": "order_dim", "distance_function": "basis",
    "edge_distance_expansion_size": "distance_size", "edge_distance_embedding_size": "distance_dim",
    "ffn_hidden_layer_multiplier": "ffn_width", "readout_hidden_layer_multiplier": "readout_width",
    "output_hidden_layer_multiplier": "output_width", "energy_reduce": "energy_reduce",
    "mlp_dropout": "dropout", "atten_dropout": "attention_dropout",
    "stochastic_depth_prob": "drop_path",
}  # fmt: skip
NAMES_V1 = {"max_neighbors": "neighbors", "enforce_max_neighbors_strictly": "strict"}
NAMES_V2 = {
    "knn_k": "neighbors", "knn_soft": "soft", "knn_use_low_mem": "low_memory",
    "knn_sigmoid_scale": "sigmoid_scale", "knn_lse_scale": "lse_scale",
    "use_envelope": "envelope", "use_angle_embedding": "angle",
    "angle_expansion_size": "angle_size", "angle_embedding_size": "angle_dim",
    "use_graph_attention": "graph_attention", "use_message_gate": "message_gate",
    "use_global_readout": "global_readout",
    "node_ffn_dropout": "node_ffn_dropout", "edge_ffn_dropout": "edge_ffn_dropout",
    "scalar_output_dropout": "scalar_output_dropout",
    "vector_output_dropout": "vector_output_dropout",
}  # fmt: skip
NORMS = {"rmsnorm": "rms", "layernorm": "layer", "skip": "none"}


def config_from(official: Mapping[str, Any], state: Mapping[str, Tensor]) -> BaseConfig:
    """Our configuration for an official one.

    Args:
        official: the backbone's arguments.
        state: the state dict, by which the releases and the heads are told apart.

    Returns:
        `EScAIPConfig` or `EScAIPV1Config`.

    Raises:
        ValueError: a setting that was never trained or cannot be built, as the basis `silu`.
    """
    first = any(PACKED in key for key in state)
    names = NAMES | (NAMES_V1 if first else NAMES_V2)
    settings = {ours: official[name] for name, ours in names.items() if name in official}
    direct = official.get("direct_force" if first else "direct_forces", True)
    settings["forces"] = "direct" if direct else "gradient"
    settings["norm"] = NORMS[official.get("normalization", "rmsnorm")]
    if settings.get("basis") == "linearsigmoid":
        settings["basis"] = "linear_sigmoid"
    if first:
        settings["stress"] = any("irreps2_layer" in key for key in state)
        # the code of 2024 has no angles and does not name them
        settings["angle"] = any(key.endswith("attn_scalar") for key in state)
        settings.setdefault("energy_reduce", "mean")
        return EScAIPV1Config(**settings)
    frequencies = tuple(official.get("freequency_list", EScAIPConfig.frequencies))
    settings["frequencies"] = frequencies if official.get("use_frequency_embedding", True) else None
    return EScAIPConfig(**settings)


def from_official(state: Mapping[str, Tensor], config: BaseConfig) -> dict[str, Tensor]:
    """Our state dict for an official one, of backbone (`backbone.`) and heads (`output_heads.`).

    Args:
        state: official keys, with or without `module.` in front.
        config: what `config_from` gave.

    Raises:
        ValueError: naming keys that are missing or unknown.
    """
    first = isinstance(config, EScAIPV1Config)
    wanted = _shapes(config)
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        names = _our_keys(key.removeprefix("module."), first, state)
        if PACKED in key:
            parts = value.chunk(3)
        else:
            parts = [value] * len(names)
        if not names or any(name not in wanted for name in names):
            unknown.append(key)
            continue
        ours |= {
            name: part.reshape(wanted[name]) if part.numel() == wanted[name].numel() else part
            for name, part in zip(names, parts, strict=True)
        }
    missing = [name for name in wanted if name not in ours]
    if unknown or missing:
        raise ValueError(
            f"the checkpoint does not fit the configuration: unknown {unknown[:4] or 'none'}, "
            f"missing (by our names) {missing[:4] or 'none'}"
        )
    return ours


def to_official(
    state: Mapping[str, Tensor], config: BaseConfig, heads: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The official state dict; nothing is lost.

    Args:
        state: ours.
        config: its configuration.
        heads: what the official configuration calls the heads: `energy`, `forces`, `stress`.
    """
    first = isinstance(config, EScAIPV1Config)
    called = {"energy": "energy", "forces": "forces", "stress": "stress"} | dict(heads or {})
    table = {ours: official for official, ours in (V1 if first else V2).items()}
    result: dict[str, Tensor] = {}
    packed: dict[str, list[Tensor]] = {}
    for key, value in state.items():
        if first and (found := re.fullmatch(r"blocks\.(\d+)\.([qkv])\.(weight|bias)", key)):
            block, _, kind = found.groups()
            packed.setdefault(
                f"backbone.transformer_blocks.{block}.graph_attention.{PACKED}{kind}", []
            ).append(value)
            continue
        if key.startswith("force_head.") and ".norm." in key:
            part = "edge" if "direction" in key else "node"
            official = f"{part}_norm.{key.rpartition('.')[2]}"
        else:
            official = _translate(key, table)
        head = key.partition("_head")[0] if "_head." in key else None
        if _of_single_layer(key, state):
            official = re.sub(r"\.1\.0\.(weight|bias)$", r".0.\1", official)
        if head is None:
            official = f"backbone.{official}"
        else:
            official = f"output_heads.{called['forces' if head == 'force' else head]}.{official}"
        if first and key.endswith("angle.weight"):
            value = value.reshape(())
        if official.endswith("attn_weight"):
            value = value[None, None]
        result[official] = value
    return result | {key: torch.cat(parts) for key, parts in packed.items()}


def gradient_from_direct(
    state: Mapping[str, Tensor], config: BaseConfig
) -> tuple[dict[str, Tensor], BaseConfig]:
    """The state and configuration of a gradient model that starts from a direct one.

    What only direct forces need is left out: readouts, projection and head of the edges, and the
    last block's feed-forward network on them.

    Args:
        state: ours, of the direct model.
        config: its configuration.
    """
    changed = replace(
        config, forces="gradient", **({"stress": False} if hasattr(config, "stress") else {})
    )
    wanted = _shapes(changed)
    return {key: state[key] for key in wanted}, changed


def _our_keys(key: str, first: bool, state: Mapping[str, Tensor]) -> list[str]:
    if key.startswith("output_heads."):
        head, _, rest = key.removeprefix("output_heads.").partition(".")
        part, _, kind = rest.rpartition(".")
        if part in ("node_norm", "edge_norm") and not first:
            if f"output_heads.{head}.force_magnitude_layer.final_output.0.weight" in {
                k.removeprefix("module.") for k in state
            }:
                return [
                    f"force_head.{'direction' if part == 'edge_norm' else 'magnitude'}.norm.{kind}"
                ]
        found = _translate(rest, V1 if first else V2)
        return [found] if found else []
    rest = key.removeprefix("backbone.")
    if PACKED in rest:
        block = rest.split(".")[1]
        return [f"blocks.{block}.{part}.{rest.rpartition('_')[2]}" for part in "qkv"]
    found = _translate(rest, V1 if first else V2)
    return [found] if found else []


def _of_single_layer(key: str, state: Mapping[str, Tensor]) -> bool:
    """Whether our key belongs to a feed-forward network of width 0, which is one linear map."""
    stem, down, kind = key.rpartition(".down.")
    return bool(down) and f"{stem}.up.{kind}" not in state


def _translate(key: str, table: Mapping[str, str]) -> str:
    """Looks a key up with its block number taken out and, where needed, its last word."""
    # a feed-forward network of width 0 is one linear map, our `down`
    key = re.sub(r"((?:_ffn|\bffn|mlp_node|mlp_edge))\.0\.(weight|bias)$", r"\1.1.0.\2", key)
    number = re.match(
        r"(?:transformer_blocks|readout_layers|blocks|(?:whole\.)?readouts)\.(\d+)\.", key
    )
    plain = key
    if number:
        plain = key[: number.start(1)] + "{}" + key[number.end(1) :]
    found, tail = table.get(plain), ""
    if found is None:
        stem, _, tail = plain.rpartition(".")
        found = table.get(stem + ".")
    if found is None:
        return ""
    return (found + tail).replace("{}", number[1]) if number else found + tail


def _shapes(config: BaseConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: x.shape for name, x in config.build().state_dict().items()}
