"""The library of a kernel that came with the wheel, for the processor at hand."""

import platform
import sys
from pathlib import Path

import torch

from .builder import intact, machine_options

FOLDER = "prebuilt"


def find(folder: Path) -> Path | None:
    """The library beside the sources in `folder` that suits this machine; None without one.

    `hatch_build.py` of core-attn makes them; an editable install has none.
    """
    try:
        if sys.platform != "linux" or machine_options():
            return None
    except ValueError:
        return None
    for target in _targets():
        for library in (folder / FOLDER).glob(f"{target}-*.so"):
            if intact(library):
                return library
    return None


def _targets() -> list[str]:
    """The names of the builds that run here, best first."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        capability = torch.backends.cpu.get_cpu_capability()
        return {"AVX512": ["x86_64-avx512", "x86_64-avx2"], "AVX2": ["x86_64-avx2"]}.get(
            capability, []
        )
    return ["aarch64"] if machine in ("aarch64", "arm64") else []
