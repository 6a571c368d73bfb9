"""attention and short_attention by the Triton kernels beside SDPA and FlexAttention, on a GPU.

    python -m benchmarks.gpu_attention [--dtype bfloat16]

Ratios are the rival's time over ours: above 1 we are faster. A rival that cannot do the job, or
whose gradient of the bias is missing, shows as "-".
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from core_attn import attention, short_attention, use_backend
from core_attn.testing.timing import medians, table

SHAPES = (  # batch, heads, tokens, dim
    (4, 16, 2048, 64),
    (4, 16, 2048, 128),
    (32, 12, 197, 64),
    (4096, 8, 20, 16),
    (1024, 2, 39, 32),
    (2048, 6, 49, 32),
)
KINDS = ("plain", "causal", "bias")
HEADER = ("shape", "kind", "pass", "ours ms", "sdpa", "flex")
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def ours(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    with use_backend("triton"):
        if q.shape[-2] <= 64 and not causal:
            return short_attention(q, k, v, bias=bias)
        return attention(q, k, v, bias=bias, causal=causal)


def sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, bias, is_causal=causal)


@torch.compile(dynamic=False)
def flex(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        s = s if bias is None else s + bias[h, i, j]
        return torch.where(i >= j, s, -torch.inf) if causal else s

    return flex_attention(q, k, v, score)  # pyright: ignore


def timed(rivals: Sequence[Attend], inputs: Sequence[Tensor | None], backward: bool) -> list[float]:
    """Median seconds of the rivals that can; NaN for the others."""
    leaves = [x for x in inputs if x is not None]

    def once(attend: Attend) -> None:
        out = attend(*inputs)
        if backward:
            torch.autograd.grad(out, leaves, out.detach())
        torch.cuda.synchronize()

    able = []
    for rival in rivals:
        try:
            once(rival)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            print(f"{rival.func.__name__}: {str(error).splitlines()[0]}")
        else:
            able.append(rival)
    taken = dict(zip(map(id, able), medians([partial(once, r) for r in able]), strict=True))
    return [taken.get(id(rival), float("nan")) for rival in rivals]


def rows(shape: tuple[int, ...], kind: str, dtype: torch.dtype) -> list[list[str]]:
    q, k, v = (torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for _ in range(3))
    _, heads, tokens, _ = shape
    bias = None
    if kind == "bias":
        bias = torch.randn(heads, tokens, tokens, device="cuda", dtype=dtype, requires_grad=True)
    rivals = [partial(f, causal=kind == "causal") for f in (ours, sdpa, flex)]
    lines = []
    for name, backward in (("forward", False), ("both", True)):
        mine, *others = timed(rivals, (q, k, v, bias), backward)
        ratios = ["-" if other != other else f"{other / mine:.2f}x" for other in others]
        lines.append([str(shape)[1:-1], kind, name, f"{1e3 * mine:.3f}", *ratios])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    dtype = getattr(torch, parser.parse_args().dtype)
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU; this benchmark needs one")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {dtype}; medians in turn")
    lines = [line for shape in SHAPES for kind in KINDS for line in rows(shape, kind, dtype)]
    print(table(HEADER, lines))


if __name__ == "__main__":
    main()
