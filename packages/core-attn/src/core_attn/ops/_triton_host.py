"""The host side of the Triton backends, importable without triton."""

import importlib.util
import os
from typing import NamedTuple

import torch
from torch import Tensor

from ._dispatch import constant_in_graphs

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # triton, too, looks once, on import


class Tiles(NamedTuple):
    """How a kernel is cut: queries and keys per tile, warps per program, stages of its pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int

    def options(self, width: int) -> dict[str, int]:
        """As keyword arguments of a launch, for heads padded to `width`."""
        return {
            "BLOCK_Q": self.queries,
            "BLOCK_K": self.keys,
            "BLOCK_D": width,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


def refuses_device(x: Tensor) -> str | None:
    """Why the kernels cannot take tensors placed like `x`, or None."""
    if x.device.type != "cuda" and not (x.device.type == "cpu" and INTERPRETED and INSTALLED):
        return f"the tensors are on {x.device.type}, the kernels need a CUDA or ROCm GPU"
    if not INSTALLED:
        return "triton is not installed"
    if not arch_of(x.device):
        return "the GPU has no tensor cores that the kernels know (sm_80 on, gfx90a on)"
    return "the kernels have no float64" if x.dtype == torch.float64 else None


def interpreted(x: Tensor) -> str | None:
    """Why the kernels should not take tensors placed like `x` although they can."""
    if x.device.type == "cpu":
        return "the interpreter only runs where use_backend('triton') asks for it"
    return None


@constant_in_graphs
def arch_of(device: torch.device) -> str:
    """The name of a device in the tile tables; empty where the kernels do not run.

    NVIDIA cards other than Hopper and datacentre Blackwell take the sm80 tiles, which are held
    below the 99 KiB of shared memory that the smallest of them have.
    """
    if device.type == "cpu":
        return "sm80"  # under the interpreter
    if torch.version.hip:
        name = torch.cuda.get_device_properties(device).gcnArchName
        return "gfx942" if name.startswith(("gfx90a", "gfx94", "gfx95")) else ""
    major = torch.cuda.get_device_capability(device)[0]
    return {9: "sm90", 10: "sm100"}.get(major, "sm80" if major >= 8 else "")


def power_of_2(n: int) -> int:
    """The least one that is not below `n`."""
    return 1 << max(n - 1, 0).bit_length()


def rows_like(x: Tensor, heads: int, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for (batch, heads, tokens, dim) with heads inside of tokens where `x` has them so."""
    batch, _, tokens, _ = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty((batch, tokens, heads, dim), dtype=dtype).transpose(1, 2)
    return x.new_empty((batch, heads, tokens, dim), dtype=dtype)


def as_bytes(mask: Tensor | None) -> Tensor | None:
    """A boolean mask as the bytes it is stored in, which AMD's buffer instructions can load."""
    return None if mask is None else mask.view(torch.uint8)
