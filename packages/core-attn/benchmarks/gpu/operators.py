"""The operators that are measured: an operator to come adds a `Subject`, not a script."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import core_attn

Shape = tuple[int, int, int, int]  # batch, heads, tokens, dim
DENSE = {"causal": 0.5}  # shares of the keys that are seen


class Problem(NamedTuple):
    """The arguments of one call, with gradients wanted of `leaves`."""

    tensors: tuple[Tensor, ...]
    options: dict[str, Any]

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in (*self.tensors, *self.options.values()) if _is_leaf(x)]

    def copy(self, dtype: torch.dtype) -> "Problem":
        """The same numbers in another dtype."""

        def to(x: Any) -> Any:
            if not isinstance(x, Tensor) or not x.is_floating_point():
                return x
            return x.detach().to(dtype).requires_grad_(x.requires_grad)

        return Problem(
            tuple(map(to, self.tensors)), {name: to(x) for name, x in self.options.items()}
        )


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


class Subject(NamedTuple):
    """One operator with kernels on a GPU.

    Attributes:
        call: the operator.
        make: a problem of a shape, feature, dtype and device.
        features: what is tried for errors, one at a time.
        checked: shapes for the errors; the first is small enough for the interpreter.
        timed: shapes and features for the timings, the most wanted first.
        seen: the share of the keys that a query sees, by tokens and feature.
        has_rivals: whether torch has kernels for it.
        dtypes: those that its kernel takes.
    """

    call: Callable[..., Tensor]
    make: Callable[[Shape, str, torch.dtype, torch.device], Problem]
    features: tuple[str, ...]
    checked: tuple[Shape, ...]
    timed: tuple[tuple[Shape, str], ...]
    seen: Callable[[int, str], float] = lambda tokens, feature: DENSE.get(feature, 1.0)
    has_rivals: bool = True
    dtypes: tuple[str, ...] = ("bfloat16", "float16", "float32")

    def flops(self, shape: Shape, feature: str) -> float:
        """Useful FLOPs of the forward; the backward has 2.5 times as many."""
        batch, heads, tokens, dim = shape
        seen = 1 / tokens if feature == "decode" else self.seen(tokens, feature)
        return 4.0 * batch * heads * tokens**2 * dim * seen


def normal(shape: Sequence[int], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    """Normal numbers, the same for every dtype up to rounding."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(*shape, generator=generator, device=device)
    return x.to(dtype).requires_grad_()


def make_attention(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    batch, heads, tokens, dim = shape
    kv_heads = max(heads // 4, 1) if feature in ("grouped", "decode") else heads
    queries = 1 if feature == "decode" else tokens
    q = normal((batch, heads, queries, dim), dtype, device, 0)
    k, v = (normal((batch, kv_heads, tokens, dim), dtype, device, seed) for seed in (1, 2))
    if feature == "split":  # heads of one projection, read where they lie
        fused = normal((batch, tokens, 3, heads, dim), dtype, device, 0).detach()
        q, k, v = (x.requires_grad_() for x in fused.permute(2, 0, 3, 1, 4).unbind(0))
    seen = torch.arange(tokens, device=device) % 7 != 3
    options: dict[str, Any] = (
        {
            "causal": {"causal": True},
            "window": {"window": (tokens // 8, 3)},
            "window 1": {"window": 1},
            "bias": {"bias": normal((heads, tokens, tokens), dtype, device, 3)},
            "bias per batch": {"bias": normal((batch, heads, tokens, tokens), dtype, device, 3)},
            "mask": {"mask": seen},
            "lengths": {
                "lengths": torch.arange(2 * batch, device=device)[::2] % tokens + 1
            },  # strided
            "gate": {"head_gate": normal((batch, tokens, heads), dtype, device, 4)},
        }.get(feature, {})
        if feature not in ("decode", "grouped", "split", "plain")
        else {}
    )
    return Problem((q, k, v), options)


def make_short(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    batch, heads, tokens, dim = shape
    if feature == "packed":
        sizes = torch.arange(batch) % (tokens - 1) + 2
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        strided = torch.stack([offsets, offsets], 1).to(device)[:, 0]
        total = int(offsets[-1])
        tensors = tuple(normal((total, heads, dim), dtype, device, seed) for seed in range(3))
        return Problem(tensors, {"offsets": strided})
    tensors = tuple(normal(shape, dtype, device, seed) for seed in range(3))
    mask = torch.arange(tokens, device=device) % 7 != 3
    options = {
        "bias": {"bias": normal((heads, tokens, tokens), dtype, device, 3)},
        "mask": {"mask": mask.expand(batch, 1, tokens, tokens)},
        "gate": {"head_gate": normal((batch, heads), dtype, device, 4)},
    }
    return Problem(tensors, options.get(feature, {}))


def make_lists(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    batch, heads, tokens, _ = shape
    tensors = tuple(normal(shape, dtype, device, seed) for seed in range(3))
    picks = max(tokens // 4, 1)
    start = torch.arange(tokens, device=device)[:, None]
    index = (start + 3 * torch.arange(picks, device=device)) % tokens
    options: dict[str, Any] = {"index": index.expand(batch, heads, tokens, picks)}
    if feature == "bias":
        options["bias"] = normal((heads, 1, picks), dtype, device, 3)
    return Problem(tensors, options)


def make_windows(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    """Square maps in blocks of 8 with a halo of 3, or of single queries among 3 x 3 keys."""
    _, heads, tokens, _ = shape
    side = math.isqrt(tokens)
    tensors = tuple(normal(shape, dtype, device, seed) for seed in range(3))
    options: dict[str, Any] = {"grid": (side, side), "halo": 3, "block": 8}
    if feature == "single":
        options |= {"halo": 1, "block": 1, "mask_padding": True}
    if feature == "bias":
        options["slot_bias"] = normal((heads, 14, 14), dtype, device, 3)
    return Problem(tensors, options)


def make_clusters(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    """Clusters of an eighth of the tokens, that overlap."""
    batch, heads, tokens, _ = shape
    tensors = tuple(normal(shape, dtype, device, seed) for seed in range(3))
    members = max(tokens // 8, 1)
    begin = torch.arange(8, device=device)[:, None] * members
    index = (begin + torch.arange(members + 1, device=device)) % tokens
    options = {"members": index.expand(batch, heads, 8, members + 1)}
    return Problem(tensors, options | ({"causal": True} if feature == "causal" else {}))


def make_edges(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    """(atoms, heads, edges of an atom, dim), angles with half of the channels."""
    atoms, heads, each, dim = shape
    q, k, v = (normal((atoms * each, heads, dim), dtype, device, seed) for seed in range(3))
    direction = F.normalize(normal((atoms * each, 3), dtype, device, 3).detach(), dim=1)
    degrees = (dim,)
    if feature == "angles":
        degrees = (dim // 2, dim // 4, dim - dim // 2 - dim // 4)
        direction.requires_grad_()
    offsets = torch.arange(atoms + 1, device=device) * each
    bias = normal((atoms * each,), dtype, device, 4)
    return Problem((q, k, v, direction, offsets), {"degrees": degrees, "bias": bias})


def make_wkv(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    batch, _, tokens, channels = shape
    k, v = (normal((batch, tokens, channels), dtype, device, seed) for seed in range(2))
    decay, bonus = (normal((channels,), dtype, device, seed).detach() for seed in (2, 3))
    options = {"log_decay": -decay.abs(), "bonus": bonus}
    return Problem((k, v), {name: x.requires_grad_() for name, x in options.items()})


def make_tokens(shape: Shape, feature: str, dtype: torch.dtype, device: torch.device) -> Problem:
    batch, _, tokens, channels = shape
    return Problem((normal((batch, tokens, channels), dtype, device, 0),), {})


def first_of(operator: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """A recurrence without the state that it returns beside its outputs."""
    return lambda *tensors, **options: operator(*tensors, **options)[0]


def one_pass(tokens: int, feature: str) -> float:
    """The share of the keys for what goes through the tokens once."""
    return 1 / tokens


OPERATORS = {
    "attention": Subject(
        core_attn.attention, make_attention,
        ("plain", "causal", "window", "window 1", "bias", "bias per batch", "mask", "lengths",
         "grouped", "gate", "split"),
        ((2, 4, 33, 32), (2, 4, 197, 64), (2, 4, 520, 128), (2, 4, 256, 256)),
        (((4, 16, 2048, 64), "plain"), ((4, 16, 2048, 128), "causal"), ((32, 12, 197, 64), "bias"),
         ((4, 16, 2048, 64), "bias"), ((4, 16, 2048, 128), "plain"), ((4, 16, 2048, 64), "causal"),
         ((32, 12, 197, 64), "plain"), ((4, 32, 4096, 128), "grouped"),
         ((8, 32, 8192, 128), "decode"), ((4, 16, 2048, 64), "window"),
         ((4, 16, 2048, 64), "lengths"), ((4, 16, 1024, 256), "causal")),
    ),
    "short_attention": Subject(
        core_attn.short_attention, make_short,
        ("plain", "bias", "mask", "gate", "packed"),
        ((5, 2, 9, 16), (64, 2, 49, 32), (64, 2, 39, 16), (64, 2, 128, 64)),
        (((2048, 6, 49, 32), "bias"), ((1024, 2, 39, 32), "plain"), ((4096, 8, 20, 16), "plain"),
         ((4096, 8, 32, 16), "packed"), ((1024, 4, 128, 64), "plain")),
    ),
    "gather_attention": Subject(
        core_attn.gather_attention, make_lists,
        ("plain", "bias"),
        ((1, 2, 9, 16), (2, 4, 197, 64), (2, 4, 520, 128)),
        (((32, 6, 197, 64), "plain"), ((8, 6, 1024, 64), "plain")),
        lambda tokens, feature: 0.25, has_rivals=False,
    ),
    "neighborhood_attention": Subject(
        core_attn.neighborhood_attention, make_windows,
        ("plain", "single", "bias"),
        ((1, 2, 64, 16), (2, 4, 196, 32), (2, 4, 400, 128)),
        (((16, 8, 4096, 16), "plain"), ((16, 4, 3136, 64), "plain"), ((16, 4, 3136, 32), "single")),
        lambda tokens, feature: (9 if feature == "single" else 196) / tokens, has_rivals=False,
    ),
    "cluster_attention": Subject(
        core_attn.cluster_attention, make_clusters,
        ("plain", "causal"),
        ((1, 2, 16, 16), (2, 4, 200, 64), (2, 4, 512, 128)),
        (((8, 8, 4096, 64), "plain"), ((8, 8, 4096, 64), "causal")),
        lambda tokens, feature: 1 / 8, has_rivals=False,
    ),
    "edge_attention": Subject(
        core_attn.edge_attention, make_edges,
        ("plain", "angles"),
        ((3, 2, 5, 16), (64, 4, 20, 16), (64, 8, 33, 64)),
        (((1000, 8, 30, 16), "angles"), ((1000, 8, 30, 16), "plain")),
        has_rivals=False, dtypes=("float32",),
    ),
    "wkv": Subject(
        first_of(core_attn.wkv), make_wkv,
        ("plain",), ((2, 1, 9, 16), (2, 1, 197, 64)), (((8, 1, 1024, 768), "plain"),),
        one_pass, has_rivals=False,
    ),
    "lif": Subject(
        first_of(core_attn.lif), make_tokens,
        ("plain",), ((2, 1, 9, 16), (2, 1, 197, 64)), (((8, 1, 1024, 768), "plain"),),
        one_pass, has_rivals=False,
    ),
    "pluecker_mean": Subject(
        lambda z: core_attn.pluecker_mean(z, (1, 2, 4, 8)), make_tokens,
        ("plain",), ((2, 1, 9, 6), (2, 1, 197, 32)), (((8, 1, 1024, 32), "plain"),),
        one_pass, has_rivals=False,
    ),
}  # fmt: skip
