"""Compiles the kernels with the C compiler at hand, once per machine, and loads them."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCES = sorted(Path(__file__).with_name("kernel").glob("*.[ch]"))
FLAGS = (
    "-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
SWITCH = "CORE_ATTN_NATIVE"


class View(ctypes.Structure):
    """An array and its strides, in elements; `View` of kernel/problem.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("problem", "head", "row", "column")),
    ]


VIEWS = (
    "q", "k", "v", "bias", "mask", "gate", "out",
    "grad", "dq", "dk", "dv", "dbias", "dgate",
    "tq", "tk", "tv", "tbias", "tgate", "dgrad",
)  # fmt: skip


class Call(ctypes.Structure):
    """The arguments of a pass; `Call` of kernel/problem.h."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("problems", "heads", "queries", "keys", "dim", "v_dim")
        ),
        ("offsets", ctypes.c_void_p),
        ("seed", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("dropout", ctypes.c_float),
        *((name, View) for name in VIEWS),
    ]


class Block(ctypes.Structure):
    """A layer around the attention; `Block` of kernel/block.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "problems", "tokens", "in_width", "width", "heads", "stride",
                "activated", "residual", "norm_first",
            )
        ),
        ("seed", ctypes.c_void_p),
        *((name, ctypes.c_float) for name in ("scale", "dropout", "eps")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "x", "weight", "bias", "gain", "shift", "packed", "y", "out",
                "grad", "dx", "dweight", "dbias", "dgain", "dshift",
            )
        ),
    ]  # fmt: skip


def solve(call: Call | Block, pass_number: int) -> None:
    """Runs pass 0 (forward), 1 (backward) or 2 (its derivative) on torch's number of threads.

    Raises:
        MemoryError: the kernel found no memory to work in.
    """
    library, _ = _load()
    assert library is not None
    entry = (
        library.core_attn_block if isinstance(call, Block) else library.core_attn_short_attention
    )
    if entry(ctypes.byref(call), pass_number, torch.get_num_threads(), _parallel()):
        raise MemoryError("short_attention: no memory for the scores of one problem per thread")


def lanes() -> int:
    """Floats in a vector of the processor, as compiled."""
    library, _ = _load()
    return ctypes.c_int.in_dll(library, "core_attn_lanes").value if library else 0


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why there is no kernel on this machine; None where there is one."""
    return _load()[1]


@cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The kernels' library, or why there is none."""
    if os.environ.get(SWITCH, "1") == "0":
        return None, f"{SWITCH}=0 in the environment"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        return None, f"there is no C compiler {' '.join(compiler)!r}"
    try:
        library = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        return None, f"compiling the kernel failed: {reason}"
    for entry in (library.core_attn_short_attention, library.core_attn_block):
        entry.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    return library, None


def _compiled(compiler: list[str]) -> Path:
    """The shared library for these sources, compiler and processor, built where it is missing."""
    binary = Path(shutil.which(compiler[0]) or compiler[0]).resolve()
    key = hashlib.sha256()
    for source in SOURCES:
        key.update(source.read_bytes())
    for part in (compiler, str(binary), binary.stat().st_mtime_ns, FLAGS, _processor()):
        key.update(repr(part).encode())
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "core_attn"
    library = folder / f"short_attention-{key.hexdigest()[:20]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / library.name
        sources = [str(source) for source in SOURCES if source.suffix == ".c"]
        command = [*compiler, *FLAGS, *sources, "-o", str(built)]
        try:
            _run([*command, "-march=native"])
        except subprocess.CalledProcessError:  # some compilers for ARM know only -mcpu
            _run(command)
        built.replace(library)  # atomic: another process sees all of it or nothing
    return library


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@cache
def _parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP runtime torch runs on, so that its threads are shared."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None
