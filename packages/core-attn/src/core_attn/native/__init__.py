"""Kernels in C: compiled with the compiler at hand, once per machine, and loaded."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import torch

HEADERS = Path(__file__).parent
FLAGS = (
    "-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
SWITCH = "CORE_ATTN_NATIVE"


class Kernel:
    """C sources that are compiled and loaded at their first use.

    Each entry is `int entry(const void *call, int pass, int threads, Parallel parallel)` and
    returns 0, or 1 where it found no memory; `Parallel` and what to do with it are in "team.h".
    The library is kept in the user's cache folder, named by a hash of the sources, the compiler
    and the processor. CORE_ATTN_NATIVE=0 in the environment turns all kernels off.

    Args:
        name: of the library's file.
        folder: of the sources; all its .c files are compiled.
        entries: the functions to call.

    Example:
        >>> call = type("Call", (ctypes.Structure,), {"_fields_": []})()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     body = "(const void *call, int pass, int threads, void *parallel) { return 0; }"
        ...     _ = Path(folder, "idle.c").write_text("int idle" + body)
        ...     kernel = Kernel("idle", Path(folder), ["idle"])
        ...     if kernel.missing() is None:
        ...         kernel.run("idle", call)
    """

    def __init__(self, name: str, folder: Path, entries: Sequence[str]):
        self.name, self.entries = name, tuple(entries)
        self.sources = sorted(folder.glob("*.[ch]"))

    def missing(self) -> str | None:
        """Why there is no kernel on this machine; None where there is one."""
        return self._loaded[1]

    def run(self, entry: str, call: ctypes.Structure, pass_number: int = 0) -> None:
        """Calls an entry on torch's number of threads.

        Raises:
            MemoryError: the kernel found no memory to work in.
        """
        function = getattr(self.library, entry)
        if function(ctypes.byref(call), pass_number, torch.get_num_threads(), _parallel()):
            raise MemoryError(f"{self.name}: no memory to work in")

    @property
    def library(self) -> ctypes.CDLL:
        """The loaded library.

        Raises:
            RuntimeError: there is none.
        """
        library, reason = self._loaded
        if library is None:
            raise RuntimeError(f"{self.name}: {reason}")
        return library

    @cached_property
    def _loaded(self) -> tuple[ctypes.CDLL | None, str | None]:
        """The library, or why there is none."""
        if os.environ.get(SWITCH, "1") == "0":
            return None, f"{SWITCH}=0 in the environment"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if not compiler or shutil.which(compiler[0]) is None:
            return None, f"there is no C compiler {' '.join(compiler)!r}"
        try:
            library = ctypes.CDLL(str(self._compiled(compiler)))
        except (OSError, subprocess.SubprocessError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
            return None, f"compiling the kernel failed: {reason}"
        for entry in self.entries:
            types = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
            getattr(library, entry).argtypes = types
        return library, None

    def _compiled(self, compiler: list[str]) -> Path:
        """The library for these sources, compiler and processor, built where it is missing."""
        binary = Path(shutil.which(compiler[0]) or compiler[0]).resolve()
        key = hashlib.sha256()
        for source in (*self.sources, *sorted(HEADERS.glob("*.h"))):
            key.update(source.read_bytes())
        for part in (compiler, str(binary), binary.stat().st_mtime_ns, FLAGS, _processor()):
            key.update(repr(part).encode())
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "core_attn"
        library = folder / f"{self.name}-{key.hexdigest()[:20]}.so"
        if library.exists():
            return library
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / library.name
            sources = [str(source) for source in self.sources if source.suffix == ".c"]
            command = [*compiler, *FLAGS, f"-I{HEADERS}", *sources, "-lm", "-o", str(built)]
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
