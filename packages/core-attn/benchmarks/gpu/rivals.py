"""What the kernels are timed beside: torch's own, one by one."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from core_attn import use_backend

from .operators import OPERATORS, Problem

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
NAMES = ("ours", *BACKENDS, "flex")
Run = Callable[[], Tensor]


def run_of(name: str, operator: str, feature: str, problem: Problem) -> Run:
    """A call of ours or of a rival.

    Raises:
        NotImplementedError: the rival has no such feature.
    """
    if name == "ours":
        return functools.partial(ours, operator, problem, "triton")
    if name == "composed":  # of torch's operations
        return functools.partial(ours, operator, problem, "reference")
    if name == "flex":
        return flex(feature, problem)
    return functools.partial(sdpa, BACKENDS[name], feature, problem)


def ours(operator: str, problem: Problem, backend: str) -> Tensor:
    with use_backend(backend):
        return OPERATORS[operator].call(*problem.tensors, **problem.options)


def sdpa(backend: SDPBackend, feature: str, problem: Problem) -> Tensor:
    if feature not in ("plain", "causal", "bias", "grouped", "decode", "split"):
        raise NotImplementedError(f"SDPA has no {feature}")
    bias, grouped = problem.options.get("bias"), feature in ("grouped", "decode")
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(
            *problem.tensors, bias, is_causal=feature == "causal", enable_gqa=grouped
        )


def flex(feature: str, problem: Problem) -> Run:
    """FlexAttention, compiled for this feature alone, with a block mask where that skips work."""
    q, k, v = problem.tensors
    queries, keys = q.shape[-2], k.shape[-2]
    score = mask = None
    if feature == "causal":
        mask = create_block_mask(
            lambda b, h, i, j: i >= j, None, None, queries, keys, device=str(q.device)
        )
    elif feature == "window":
        left, right = problem.options["window"]
        mask = create_block_mask(
            lambda b, h, i, j: (j >= i - left) & (j <= i + right), None, None, queries, keys,
            device=str(q.device),
        )  # fmt: skip
    elif feature == "bias":
        bias = problem.options["bias"]
        score = lambda s, b, h, i, j: s + bias[h, i, j]  # noqa: E731
    elif feature not in ("plain", "grouped", "decode", "split"):
        raise NotImplementedError(f"no FlexAttention is written for {feature}")
    torch._dynamo.config.recompile_limit = 256  # each row is a compilation of its own
    torch._functorch.config.donated_buffer = False  # the backward is timed several times
    compiled = torch.compile(flex_attention, dynamic=False)
    grouped = feature in ("grouped", "decode")
    return lambda: compiled(q, k, v, score_mod=score, block_mask=mask, enable_gqa=grouped)  # pyright: ignore
