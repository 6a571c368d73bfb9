"""Kernels in C: prebuilt in the wheel, or compiled once per machine, and loaded."""

import ctypes
import os
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import torch

from . import prebuilt
from .builder import build

SWITCH = "CORE_ATTN_NATIVE"


class Kernel:
    """C sources that are compiled and loaded at their first use.

    Each entry is `int entry(const void *call, int pass, int threads, Parallel parallel)` and
    returns 0, 1 where it found no memory, or a status of its own; `Parallel` and what to do with it
    are in "team.h". A library that came with the wheel is taken where one suits the processor; else
    the sources are compiled with $CC (`cc`) and kept in the user's cache folder. CORE_ATTN_NATIVE=0
    in the environment turns all kernels off, CORE_ATTN_NATIVE=source leaves the prebuilt ones
    alone, as machine options (-m...) in $CFLAGS do.

    Args:
        name: of the library's file.
        folder: of the sources; all its .c files are compiled.
        entries: the functions to call.

    Example:
        >>> import tempfile
        >>> call = type("Call", (ctypes.Structure,), {"_fields_": []})()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     body = "(const void *call, int pass, int threads, void *parallel) { return 0; }"
        ...     _ = Path(folder, "idle.c").write_text("int idle" + body)
        ...     kernel = Kernel("idle", Path(folder), ["idle"])
        ...     if kernel.missing() is None:
        ...         assert kernel.run("idle", call) == 0
    """

    def __init__(self, name: str, folder: Path, entries: Sequence[str]):
        self.name, self.folder, self.entries = name, folder, tuple(entries)

    def missing(self) -> str | None:
        """Why there is no kernel on this machine; None where there is one."""
        return self._loaded[1]

    def run(self, entry: str, call: ctypes.Structure, pass_number: int = 0) -> int:
        """Calls an entry on torch's number of threads and returns its status: 0, or its own code.

        Raises:
            MemoryError: the kernel found no memory to work in.
        """
        function = getattr(self.library, entry)
        status = function(ctypes.byref(call), pass_number, torch.get_num_threads(), _parallel())
        if status == 1:
            raise MemoryError(f"{self.name}: no memory to work in")
        return status

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
        switch = os.environ.get(SWITCH, "1")
        if switch == "0":
            return None, f"{SWITCH}=0 in the environment"
        path = None if switch == "source" else prebuilt.find(self.folder)
        try:
            library = ctypes.CDLL(str(path or build(self.name, self.folder)))
        except (OSError, RuntimeError) as error:
            return None, str(error)
        for entry in self.entries:
            types = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
            getattr(library, entry).argtypes = types
        return library, None


@cache
def _parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP runtime torch runs on, so that its threads are shared."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None
