"""Compiles every Triton kernel for every GPU it is dispatched on, without one; lists the results.

    python -m benchmarks.kernels [FILE] [--all]

The table is printed, or written to FILE; then the exit status is 1 where that changed the file, as
a new spill does. The backends plan the launches themselves; triton.compile then compiles them for
another device instead of running them. It fails where a kernel has no tensor-core instruction or
needs more shared memory than there is. --all has every dtype and head dim, aligned sizes too.
"""

import argparse
import contextlib
import io
import multiprocessing
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget

from core_attn.ops._attention import triton_backward, triton_forward
from core_attn.ops._attention.triton_tiles import WIDTHS
from core_attn.ops._short_attention import triton_kernels as short
from core_attn.ops._short_attention.triton_tiles import TILES as SHORT_TILES
from core_attn.ops._triton_common import Launch

from .kernels_roofline import CARDS, Work, attention_work, roofline, short_work

HALVES = {False: torch.float16, True: torch.bfloat16}
TARGETS = {  # compilation target and the shared memory that a program may have
    "sm80": (GPUTarget("cuda", 80, 32), 99 << 10),  # 163 KiB on an A100, but 99 on sm_86, 89, 120
    "sm90": (GPUTarget("cuda", 90, 32), 227 << 10),
    "sm100": (GPUTarget("cuda", 100, 32), 227 << 10),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 64 << 10),
}


class Case(NamedTuple):
    """A kernel with tiles that some call is dispatched to."""

    operator: str
    kernel: str
    arch: str
    size: int  # bytes of the dtype
    tokens: int  # of short problems, else 0
    width: int
    full: bool  # attention: bias, mask and dropout; short_attention: packed
    aligned: bool  # tokens in multiples of 16, or a split of heads and an odd number of tokens

    @property
    def dtype(self) -> torch.dtype:
        """Plain and padded launches are compiled in float16, full and packed ones in bfloat16."""
        return torch.float32 if self.size == 4 else HALVES[self.full]

    def launch(self) -> Launch:
        """The launch that the backend plans for such a call."""
        plan = plan_attention if self.operator == "attention" else plan_short
        return plan(self)

    @property
    def shown(self) -> bool:
        """Whether the page and the continuous integration have it."""
        widths = (64, 128) if self.operator == "attention" else (32, 64)
        return self.size == 2 and not self.aligned and self.width in widths

    def work(self) -> Work:
        """What a large call has to compute and to move."""
        if self.operator == "attention":
            return attention_work(self.kernel, self.size, self.width, self.full)
        return short_work(self.kernel, self.size, self.tokens, self.width)

    def tensor(self, batch: int, heads: int, tokens: int) -> torch.Tensor:
        """Queries, keys or values; unaligned ones are a part of all three, heads within tokens."""
        if self.aligned:
            return torch.zeros(batch, heads, tokens, self.width, dtype=self.dtype)
        fused = torch.zeros(batch, tokens, 3, heads, self.width, dtype=self.dtype)
        return fused[:, :, 1].transpose(1, 2)


def cases() -> Iterator[Case]:
    for kernel in ("forward", "queries", "keys", "bias"):
        for arch in TARGETS:
            for size, widths in WIDTHS.items():
                for width in widths:
                    for full in (True,) if kernel == "bias" else (False, True):
                        for aligned in (True, False):
                            yield Case("attention", kernel, arch, size, 0, width, full, aligned)
    for kernel in ("forward", "backward"):
        for (arch, size), entries in SHORT_TILES.items():
            for entry in entries:
                for packed in (False, True):
                    for aligned in (True, False):
                        yield Case(
                            "short_attention", kernel, arch, size, entry.tokens, entry.width,
                            packed, aligned,
                        )  # fmt: skip


def plan_attention(case: Case) -> Launch:
    """Causal and grouped, lengths and gate; where full a window, a bias, a mask and dropout."""
    batch, heads, tokens, full = 2, 8, 256 if case.aligned else 197, case.full
    q, dout = (case.tensor(batch, heads, tokens) for _ in range(2))
    k = q if full else case.tensor(batch, heads // 4, tokens)
    grouped = None if full else [head // 4 for head in range(heads)]
    x = triton_forward.Inputs(
        q, k, k,
        bias=torch.zeros(1 if case.kernel == "bias" else batch, heads, tokens, tokens)
        if full else None,
        mask=torch.zeros(batch, 1, tokens, tokens, dtype=torch.bool) if full else None,
        lengths=torch.zeros(batch, dtype=torch.int64),
        gate=torch.zeros(batch, heads, tokens, dtype=case.dtype),
        seed=torch.zeros(1, dtype=torch.int64) if full else None,
        k_map=grouped, v_map=grouped, window=[tokens // 2, 16] if full else [tokens, 0], scale=0.1,
        dropout=0.1,
    )  # fmt: skip
    if case.kernel == "forward":
        return triton_forward.plan(x, case.arch)[0][0]
    lse = torch.zeros(batch, heads, tokens)
    launches, _ = triton_backward.plan(dout, None, dout, lse, x, full, case.arch)
    return launches[{"queries": 0, "bias": 1, "keys": -1}[case.kernel]]


def plan_short(case: Case) -> Launch:
    """Everything at once: a shared bias, a mask, dropout and a gate."""
    problems, heads, tokens = 64, 4, case.tokens if case.aligned else case.tokens * 3 // 4 + 1
    rows = (1, problems * tokens) if case.full else (problems, tokens)
    q, dout = (case.tensor(rows[0], heads, rows[1]) for _ in range(2))
    x = short.Inputs(
        q, q, q,
        bias=torch.zeros(1, heads, tokens, tokens),
        mask=torch.zeros(problems, 1, tokens, tokens, dtype=torch.bool),
        offsets=torch.arange(problems + 1) * tokens if case.full else None,
        gate=torch.zeros(q.shape[:3], dtype=case.dtype),
        seed=torch.zeros(1, dtype=torch.int64),
        longest=tokens, scale=0.1, dropout=0.1,
    )  # fmt: skip
    if case.kernel == "forward":
        return short.plan_forward(x, case.arch)[0]
    return short.plan_backward(dout, x, True, case.arch)[0]


class Elsewhere:
    """A driver of triton for a device that is not here: it can only be compiled for."""

    def __init__(self, target: GPUTarget):
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return str(self.target)

    def get_current_stream(self, device: str) -> int:
        return 0


@dataclass(frozen=True)
class Compiled:
    """What the compilers say of one kernel."""

    registers: str
    spilled: int  # bytes on NVIDIA, registers on AMD, and those of a stack or scratch memory
    shared: int
    instruction: str

    def problems(self, arch: str) -> list[str]:
        """What is wrong with it."""
        return [
            *(["no tensor-core instruction"] if not self.instruction else []),
            *([f"{self.shared} bytes of shared memory"] if self.shared > TARGETS[arch][1] else []),
        ]


def compile_launch(launch: Launch, arch: str) -> Compiled:
    """Compiles `launch` as a GPU of `arch` does before it first runs it."""
    triton.knobs.compilation.always_compile = True
    triton.knobs.nvidia.dump_ptxas_log = True
    triton.runtime.driver.set_active(Elsewhere(TARGETS[arch][0]))  # pyright: ignore
    with contextlib.redirect_stdout(io.StringIO()) as log:
        kernel = launch.kernel.warmup(grid=(launch.programs, launch.splits), **launch.args)
    if "ptx" in kernel.asm:
        (registers,) = re.findall(r"Used (\d+) registers", log.getvalue())
        spills = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", log.getvalue())
        assembly = kernel.asm["ptx"]
        found = re.findall(r"(mma|wgmma|tcgen05)\.(?:sync|mma_async|mma)\.([\w.:]+)", assembly)
    else:
        assembly = kernel.asm["amdgcn"]
        vector, scalar, *spills = (
            re.search(rf"\.{name}:\s+(\d+)", assembly)[1]
            for name in (
                "vgpr_count", "sgpr_count",
                "vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size",
            )
        )  # fmt: skip
        registers = f"{vector} + {scalar}"
        found = re.findall(r"v_(mfma)_(\w+)", assembly)
    kinds = Counter(f"{unit} {form(variant)}" for unit, variant in found)
    instruction = kinds.most_common(1)[0][0] if kinds else ""
    return Compiled(registers, sum(map(int, spills)), kernel.metadata.shared, instruction)


def form(variant: str) -> str:
    """The shape of a matrix instruction out of its modifiers."""
    shape = re.search(r"m\d+n\d+k\d+|kind::\w+|\d+x\d+x\w+", variant)
    return shape[0] if shape else variant


def examine(case: Case) -> Compiled:
    torch.set_num_threads(1)
    return compile_launch(case.launch(), case.arch)


HEADER = """\
# Kernels

Written by `nox -s kernels`, which compiles Triton kernels ahead of time, without a GPU, with the
tiles that calls are dispatched to, and fails where one has no tensor-core instruction or exceeds
the shared memory of its GPU, or where this page changes. The same session runs the kernels under
Triton's interpreter against the reference. Nothing here was timed on a GPU: the last columns are
estimates; `python -m benchmarks.gpu` in packages/core-attn is to measure them.

The rows are the hardest of each kind: 16-bit floats, heads of 64 and 128, an odd number of tokens
(197) and heads split from one projection. `python -m benchmarks.kernels --all` compiles all dtypes,
head dims and aligned sizes.

- **with**: *plain* launches have causality, lengths, a gate and heads in groups of four (compiled
  in float16); *full* ones a window, a bias with its gradient, a mask and dropout (bfloat16).
  `short_attention` is compiled with everything at once, *padded* (float16) and *packed* (bfloat16).
- **tile**: queries x keys, warps, pipeline stages. On sm80 shared memory is held under the 99 KiB
  of sm_86, sm_89 and sm_120, which take the same tiles.
- **registers** per thread; on AMD vector + scalar ones. **spills**: bytes a thread of a stack, of
  stores and of loads together; on AMD registers.
- **FLOP/byte**: useful FLOPs over bytes moved at least once from memory.
- **bound by** the slowest of memory, tensor cores, and the arithmetic on scores between the
  products (exp2, masks, dropout's Philox), which a program does not overlap with its own products;
  **share**: the roofline's time (the slower of memory and useful tensor-core FLOPs) over the
  expected time.
"""


def row(case: Case, compiled: Compiled) -> list[str]:
    args = case.launch().args
    tile = f"{args['BLOCK_Q']}x{args['BLOCK_K']}, {args['num_warps']}, {args['num_stages']}"
    features = ("plain", "full") if case.operator == "attention" else ("padded", "packed")
    estimate = roofline(case.work(), case.arch, case.size)
    return [
        case.arch,
        str(case.dtype).removeprefix("torch."),
        *([str(case.tokens)] if case.tokens else []),
        str(case.width),
        features[case.full],
        tile,
        compiled.registers,
        str(compiled.spilled),
        f"{compiled.shared / 1024:.0f}",
        compiled.instruction,
        f"{estimate.intensity:.0f}",
        estimate.bound,
        f"{estimate.share:.0%}",
    ]


def page(results: dict[Case, Compiled]) -> str:
    """The text of docs/kernels.md."""
    parts = [f"{HEADER}\nThe estimates take these figures of the makers' data sheets:\n"]
    titles = ["card", "memory TB/s", "16-bit TFLOP/s", "float32 TFLOP/s", "exp2 T/s", "lanes T/s"]
    cards = [
        [arch, card.name, *(f"{x / 1e12:g}" for x in card[1:])] for arch, card in CARDS.items()
    ]
    parts.append(markdown(["target", *titles], cards))
    for operator, kernel in dict.fromkeys((case.operator, case.kernel) for case in results):
        shown = {c: r for c, r in results.items() if (c.operator, c.kernel) == (operator, kernel)}
        header = ["target", "dtype", *(["tokens"] if operator != "attention" else []), "head dim"]
        header += ["with", "tile", "registers", "spills", "shared KiB", "instruction"]
        header += ["FLOP/byte", "bound by", "share"]
        parts.append(f"\n## {operator}, {kernel}\n")
        parts.append(markdown(header, [row(*item) for item in shown.items()]))
    return "\n".join(parts) + "\n"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?", metavar="FILE")
    parser.add_argument("--all", action="store_true", help="every dtype, head dim and alignment")
    options = parser.parse_args()
    start, path = time.perf_counter(), options.path
    wanted = [case for case in cases() if case.shown or options.all]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        results = dict(zip(wanted, pool.map(examine, wanted, chunksize=4), strict=True))
    text = page(results)
    if path is None:
        print(text)
    print(f"{len(results)} kernels compiled in {time.perf_counter() - start:.0f} s")
    bad = {case: problems for case, c in results.items() if (problems := c.problems(case.arch))}
    for case, problems in bad.items():
        print(f"{case}: {', '.join(problems)}", file=sys.stderr)
    if path is None or bad:
        return bool(bad)
    stale = not path.exists() or path.read_text() != text
    if stale:
        path.write_text(text)
        print(f"{path} was out of date and has been rewritten", file=sys.stderr)
    return stale


if __name__ == "__main__":
    sys.exit(main())
