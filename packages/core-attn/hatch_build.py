"""Compiles the kernels into a wheel, for users without a compiler: only with ATTN_PREBUILT=1.

Every folder of C sources named `kernel` is compiled for each of TARGETS by ziglang's clang, which
brings the C library of every target with it. Without the variable nothing happens, and the first
use of a kernel compiles it. A package with kernels of its own has a `hatch_build.py` that ends in
this one.
"""

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path(__file__).parent / "src" / "core_attn" / "native"
GLIBC = "2.17"  # of CentOS 7: older than any that torch runs on
TARGETS = {
    "x86_64-avx512": (
        f"x86_64-linux-gnu.{GLIBC}",
        "x86_64+avx2+fma+avx512f+avx512bw+avx512dq+avx512vl",  # what torch calls AVX512
    ),
    "x86_64-avx2": (f"x86_64-linux-gnu.{GLIBC}", "x86_64+avx2+fma"),
    "aarch64": (f"aarch64-linux-gnu.{GLIBC}", "generic"),
}


class PrebuiltKernels(BuildHookInterface):
    """Adds `prebuilt/<target>-<digest of the content>.so` beside the sources of each kernel."""

    def dependencies(self) -> list[str]:
        """The compiler, where it will be used."""
        return ["ziglang>=0.15"] if _asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles every kernel for every target."""
        if version == "editable" or not _asked():
            return
        self.scratch = tempfile.mkdtemp()
        source = Path(self.root, "src")
        jobs = [(kernel, name) for kernel in sorted(source.rglob("kernel")) for name in TARGETS]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            libraries = list(pool.map(lambda job: self._compile(*job), jobs))
        for (kernel, _), library in zip(jobs, libraries, strict=True):
            place = kernel.relative_to(source) / "prebuilt" / library.name
            build_data["force_include"][str(library)] = place.as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was compiled once the wheel has it."""
        if hasattr(self, "scratch"):
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _compile(self, kernel: Path, name: str) -> Path:
        builder = runpy.run_path(str(NATIVE / "builder.py"))
        triple, processor = TARGETS[name]
        built = Path(tempfile.mkdtemp(dir=self.scratch), "library.so")
        units = [str(unit) for unit in sorted(kernel.glob("*.c"))]
        subprocess.run(
            [
                *(sys.executable, "-m", "ziglang", "cc", "-target", triple, f"-mcpu={processor}"),
                *(*builder["FLAGS"], "-fno-sanitize=undefined", "-s", f"-I{NATIVE}"),
                *(*units, "-lm", "-o", str(built)),
            ],
            check=True,
        )
        return built.rename(built.with_name(f"{name}-{builder['digest'](built)}.so"))


def _asked() -> bool:
    return os.environ.get("ATTN_PREBUILT", "0") == "1"
