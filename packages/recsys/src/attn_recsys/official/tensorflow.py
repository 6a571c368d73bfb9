"""The official TensorFlow variables.

Variables are numbered in the order of their creation: the deep part's kernels and biases, then
every block's beta and gamma (`Variable`, `Variable_1`, ...); queries, keys, values and residual of
every block (`dense`, `dense_1`, ...); the deep part's batch norms, where it has them, by layer
(`bn_0/gamma`, ...; their epsilon is our `deep_norm_eps=1e-3`). Kernels are (in, out).

Source: DeepGraphLearning/RecommenderSystems, featureRec, model.py.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..models.autoint import AutoIntConfig

OPTIMIZER_STATE = re.compile(r"(/Adam(_1)?|/Adagrad|/Momentum)$|^(global_step|beta[12]_power)$")

NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def from_tensorflow(variables: Mapping[str, Tensor], config: AutoIntConfig) -> dict[str, Tensor]:
    """State dict of `AutoInt` from the official variables.

    Args:
        variables: by TensorFlow name, with or without a "role|" before it; optimiser slots and
            counters are dropped.
        config: the switches of the model that the weights are for.

    Raises:
        ValueError: variables are missing, left over or of another shape.

    Example:
        >>> from attn_recsys.layout import Layout
        >>> from attn_recsys.models import AutoInt
        >>> config = AutoIntConfig(dim=4, block_widths=(8,), deep_widths=(5,))
        >>> model = AutoInt(Layout.plain(3, rows=10), config)
        >>> state = model.state_dict()
        >>> back = from_tensorflow(to_tensorflow(state, config), config)
        >>> all(back[name].equal(state[name]) for name in state)
        True
    """
    named = {name.rpartition("|")[2]: x for name, x in variables.items()}
    left = {name: x for name, x in named.items() if not OPTIMIZER_STATE.search(name)}
    state = {}
    for ours, names in _pairs(config):
        missing = [name for name in names if name not in left]
        if missing:
            raise ValueError(f"variables {missing} are missing; got {sorted(left)}")
        state[ours] = torch.cat([_ours(ours, left.pop(name)) for name in names])
    if left:
        raise ValueError(
            f"variables {sorted(left)} do not belong to a model with {len(config.block_widths)} "
            f"blocks, residual {config.residual!r} and {len(config.deep_widths)} deep layers"
        )
    return state


def to_tensorflow(state: Mapping[str, Tensor], config: AutoIntConfig) -> dict[str, Tensor]:
    """The official variables from a state dict of `AutoInt`, or from gradients by the same names.

    They have the official shapes: the deep part's biases (1, width), the logits' biases ().

    Raises:
        ValueError: the state has entries that the official model lacks.
    """
    variables = {}
    left = {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}
    for ours, names in _pairs(config):
        if ours not in left:
            if ".running_" in ours:  # there is no gradient for it
                continue
            raise ValueError(f"{ours} is missing; got {sorted(left)}")
        for name, part in zip(names, left.pop(ours).chunk(len(names)), strict=True):
            variables[name] = _theirs(ours, name, part)
    if left:
        raise ValueError(f"the official model has no counterpart of {sorted(left)}")
    return variables


def _pairs(config: AutoIntConfig) -> Iterator[tuple[str, list[str]]]:
    """Our names, each with the TensorFlow variables stacked in it."""
    if config.linear_term or config.deep_join != "logit":
        raise ValueError("the official layout has no linear term or joined deep part")
    if config.residual not in ("linear_relu", "none") or config.norm != "post":
        raise ValueError(
            f"the official layout has residual 'linear_relu' or 'none' and norm 'post', got "
            f"{config.residual!r} and {config.norm!r}"
        )
    yield "embedding.weight", ["feature_embeddings"]
    yield "out.weight", ["prediction"]
    yield "out.bias", ["prediction_bias"]
    depth = len(config.deep_widths)
    if depth:
        stride = 2 + config.deep_norm + bool(config.deep_dropout)
        for i in range(depth):
            yield f"deep.hidden.{i * stride}.weight", [_numbered("Variable", 2 * i)]
            yield f"deep.hidden.{i * stride}.bias", [_numbered("Variable", 2 * i + 1)]
            if config.deep_norm:
                for ours, theirs in NORM.items():
                    yield f"deep.hidden.{i * stride + 1}.{ours}", [f"bn_{i}/{theirs}"]
        yield "deep.out.weight", ["prediction_dense"]
        yield "deep.out.bias", ["prediction_bias_dense"]
    parts = 4 if config.residual == "linear_relu" else 3
    for block in range(len(config.block_widths)):
        maps = [_numbered("dense", parts * block + part) for part in range(parts)]
        yield f"blocks.{block}.project.weight", [f"{name}/kernel" for name in maps]
        yield f"blocks.{block}.project.bias", [f"{name}/bias" for name in maps]
        yield f"blocks.{block}.norm.bias", [_numbered("Variable", 2 * (depth + block))]
        yield f"blocks.{block}.norm.weight", [_numbered("Variable", 2 * (depth + block) + 1)]


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _is_kernel(ours: str, x: Tensor) -> bool:
    return x.dim() == 2 and not ours.startswith("embedding")


def _ours(ours: str, x: Tensor) -> Tensor:
    if ours.endswith("bias"):
        return x.reshape(-1)
    return x.T if _is_kernel(ours, x) else x


def _theirs(ours: str, name: str, x: Tensor) -> Tensor:
    if ours.endswith("out.bias"):
        return x.reshape(())
    if ours.startswith("deep.hidden") and name.startswith("Variable") and x.dim() == 1:
        return x[None]
    return x.T if _is_kernel(ours, x) else x
