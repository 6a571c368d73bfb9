"""The tiles that the kernels of `short_attention` run with; `nox -s kernels` compiles every one.

They are the largest found that leave every value in registers. Problems that no entry holds are
left to `attention`: float32 on NVIDIA, whose products take three passes over split operands, and
AMD, where every masked score costs a pair of scalar registers, only have room for fewer tokens.
"""

from typing import NamedTuple

from .._triton_host import Tiles


class Entry(NamedTuple):
    """Tiles for problems of up to so many tokens and channels a head."""

    tokens: int
    width: int
    forward: Tiles
    backward: Tiles


# (architecture, bytes of the dtype): entries, the smallest first
TILES = {
    ("sm80", 2): (
        Entry(64, 32, Tiles(64, 64, 4, 1), Tiles(64, 64, 8, 1)),
        Entry(64, 64, Tiles(64, 64, 4, 1), Tiles(16, 64, 4, 1)),
        Entry(128, 64, Tiles(32, 128, 4, 1), Tiles(32, 128, 8, 1)),
    ),
    ("sm80", 4): (
        Entry(64, 32, Tiles(16, 64, 4, 1), Tiles(16, 64, 4, 1)),
        Entry(32, 64, Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),
    ),
    ("sm90", 2): (
        Entry(64, 32, Tiles(64, 64, 4, 1), Tiles(64, 64, 8, 1)),
        Entry(64, 64, Tiles(64, 64, 4, 1), Tiles(64, 64, 4, 1)),
        Entry(128, 64, Tiles(32, 128, 8, 1), Tiles(32, 128, 8, 1)),
    ),
    ("sm90", 4): (
        Entry(64, 32, Tiles(64, 64, 4, 1), Tiles(16, 64, 4, 1)),
        Entry(32, 64, Tiles(32, 32, 4, 1), Tiles(16, 32, 4, 1)),
    ),
    ("sm100", 2): (
        Entry(64, 32, Tiles(64, 64, 4, 1), Tiles(64, 64, 8, 1)),
        Entry(64, 64, Tiles(64, 64, 4, 1), Tiles(64, 64, 8, 1)),
        Entry(128, 64, Tiles(32, 128, 4, 1), Tiles(32, 128, 8, 1)),
    ),
    ("sm100", 4): (
        Entry(64, 32, Tiles(16, 64, 4, 1), Tiles(16, 64, 4, 1)),
        Entry(32, 64, Tiles(16, 32, 4, 1), Tiles(16, 32, 4, 1)),
    ),
    ("gfx942", 2): (Entry(32, 64, Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),),
    ("gfx942", 4): (Entry(32, 64, Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),),
}


def entry_for(arch: str, size: int, tokens: int, dim: int) -> Entry | None:
    """The first entry that holds such problems, `size` being the bytes of the dtype."""
    fitting = (
        entry for entry in TILES[arch, size] if tokens <= entry.tokens and dim <= entry.width
    )
    return next(fitting, None)
