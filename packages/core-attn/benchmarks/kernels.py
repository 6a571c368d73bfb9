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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget

from core_attn.ops._triton_common import Launch

from .kernels_cases import Case, cases
from .kernels_roofline import CARDS, roofline

TARGETS = {  # compilation target and the shared memory that a program may have
    "sm80": (GPUTarget("cuda", 80, 32), 99 << 10),  # 163 KiB on an A100, but 99 on sm_86, 89, 120
    "sm90": (GPUTarget("cuda", 90, 32), 227 << 10),
    "sm100": (GPUTarget("cuda", 100, 32), 227 << 10),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 64 << 10),
}


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
    spilled: int  # bytes on NVIDIA, vector registers on AMD, and those of a stack or scratch memory
    shared: int
    instruction: str

    def problems(self, case: Case) -> list[str]:
        """What is wrong with it."""
        scalar = case.has_products and not self.instruction
        return [
            *(["no tensor-core instruction"] if scalar else []),
            *(
                [f"{self.shared} bytes of shared memory"]
                if self.shared > TARGETS[case.arch][1]
                else []
            ),
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
                "vgpr_count", "sgpr_count", "vgpr_spill_count", "private_segment_fixed_size",
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
tiles that calls are dispatched to, and fails where products have no tensor-core instruction, where
a kernel exceeds the shared memory of its GPU, or where this page changes. The same session runs the
kernels under Triton's interpreter against the reference. The last columns are estimates; what
`python -m benchmarks.gpu` measured stands in packages/core-attn/README.md.

The rows are the hardest of each kind: 16-bit floats, heads of 64, with everything added 128, an odd
number of tokens (197) and heads split from one projection. `python -m benchmarks.kernels --all`
compiles all dtypes, head dims and aligned sizes.

- **with**: *plain* launches have causality, lengths, a gate and heads in groups of four (compiled
  in float16); *full* ones a window, a bias with its gradient, a mask and dropout (bfloat16).
  `short_attention` is compiled with everything at once, *padded* (float16) and *packed* (bfloat16).
  `gather_attention` has 49 keys for each query, and sums in place of products;
  `neighborhood_attention` blocks of 8 x 8 with a halo of 3 and relative logits, and the kernels of
  clusters; *full* adds a bias, keys beside the list, dropout and weights after the softmax.
  `edge_attention`, in float32, takes atoms of 32 edges (tokens) with a *bias*, a tile for all pairs
  of them. It spills, heads of 16 channels too, most in the *tangent* pass of second derivatives: so
  it is dispatched on sm_90 alone, where an H200 measured it faster all the same.
  Recurrences have their *state* in and out, in float32; *sums* is the first pass of the backward.
  They wait for the state of the token before, which is in none of the figures.
- **tile**: queries x keys, warps, pipeline stages. On sm80 shared memory is held under the 99 KiB
  of sm_86, sm_89 and sm_120, which take the same tiles.
- **registers** per thread; on AMD vector + scalar ones. **spills**: bytes a thread of a stack, of
  stores and of loads together; on AMD vector registers and bytes of scratch memory (scalar ones
  beyond 106 lie in lanes of vector registers, which costs an instruction, not memory).
- **FLOP/byte**: useful FLOPs over bytes moved at least once from memory.
- **bound by** the slowest of memory, tensor cores, and the arithmetic on scores between the
  products (exp2, masks, dropout's Philox), which a program does not overlap with its own products;
  **share**: the roofline's time (the slower of memory and useful tensor-core FLOPs) over the
  expected time.
"""


def row(case: Case, compiled: Compiled) -> list[str]:
    args = case.launch().args
    names = ("BLOCK_Q", "BLOCK_K") if "BLOCK_Q" in args else ("BLOCK",)
    tile = [
        "x".join(str(args[name]) for name in names), args.get("num_warps", 4),
        args.get("num_stages", 3),
    ]  # fmt: skip
    estimate = roofline(case.work(), case.arch, case.size)
    return [
        case.arch,
        str(case.dtype).removeprefix("torch."),
        *([str(case.tokens)] if case.tokens else []),
        str(case.width),
        case.features,
        ", ".join(map(str, tile)),
        compiled.registers,
        str(compiled.spilled),
        f"{compiled.shared / 1024:.0f}",
        compiled.instruction or "none",
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
        tokens = ["tokens"] if any(case.tokens for case in shown) else []
        header = ["target", "dtype", *tokens, next(iter(shown)).dims]
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
    bad = {case: problems for case, c in results.items() if (problems := c.problems(case))}
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
