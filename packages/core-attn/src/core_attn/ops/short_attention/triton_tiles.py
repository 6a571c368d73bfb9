"""The tiles that the kernels of `short_attention` run with; `nox -s kernels` compiles every one."""

from .._triton_common import Tiles


def tiles_for(name: str, arch: str, size: int, longest: int, width: int) -> Tiles:
    n = 64 if longest <= 64 else 128
    return Tiles(32, n, 4, 1)
