"""Compiles this package's kernels into its wheel as core-attn does; away from it, as it is."""

import runpy
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = Path(__file__).parents[1] / "core-attn" / "hatch_build.py"


class SourcesOnly(BuildHookInterface):
    """Nothing is compiled: core-attn's headers are not at hand."""


def get_build_hook() -> type[BuildHookInterface]:
    """The hook of core-attn, or none."""
    return runpy.run_path(str(CORE))["PrebuiltKernels"] if CORE.exists() else SourcesOnly
