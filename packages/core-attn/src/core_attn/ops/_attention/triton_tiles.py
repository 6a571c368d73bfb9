"""The tiles that the kernels of `attention` run with; `nox -s kernels` compiles every one.

They are the largest found that leave every value in registers. Bias, mask and dropout cost so many
that calls with one of them ("full") have tiles of their own.
"""

from .._triton_host import Tiles

WIDTHS = {2: (32, 64, 128, 256), 4: (32, 64)}  # padded head dims by bytes of the dtype

# (architecture, kernel, full): {(bytes of the dtype, head): tiles}; 32 is as 64 if not given
TILES = {
    ("sm80", "forward", False): {
        (2, 32): Tiles(128, 64, 8, 3),
        (2, 64): Tiles(128, 64, 4, 3),
        (2, 128): Tiles(128, 64, 8, 2),
        (2, 256): Tiles(64, 32, 8, 2),
        (4, 64): Tiles(128, 32, 8, 2),
    },
    ("sm80", "forward", True): {
        (2, 64): Tiles(128, 64, 8, 2),
        (2, 128): Tiles(64, 32, 4, 2),
        (2, 256): Tiles(64, 32, 8, 2),
        (4, 64): Tiles(64, 32, 4, 2),
    },
    ("sm80", "queries", False): {
        (2, 64): Tiles(64, 64, 4, 2),
        (2, 128): Tiles(64, 64, 4, 2),
        (2, 256): Tiles(64, 32, 8, 1),
        (4, 64): Tiles(32, 32, 4, 2),
    },
    ("sm80", "queries", True): {
        (2, 64): Tiles(64, 32, 4, 2),
        (2, 128): Tiles(64, 32, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 32, 4, 2),
    },
    ("sm80", "keys", False): {
        (2, 64): Tiles(64, 128, 8, 2),
        (2, 128): Tiles(64, 64, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 32, 4, 1),
    },
    ("sm80", "keys", True): {
        (2, 64): Tiles(16, 64, 4, 2),
        (2, 128): Tiles(32, 64, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(16, 32, 4, 1),
    },
    ("sm90", "forward", False): {
        (2, 64): Tiles(128, 128, 8, 3),
        (2, 128): Tiles(128, 64, 8, 3),
        (2, 256): Tiles(128, 32, 8, 2),
        (4, 64): Tiles(128, 64, 8, 2),
    },
    ("sm90", "forward", True): {
        (2, 64): Tiles(128, 64, 8, 3),
        (2, 128): Tiles(128, 64, 8, 2),
        (2, 256): Tiles(128, 32, 8, 2),
        (4, 64): Tiles(128, 64, 8, 2),
    },
    ("sm90", "queries", False): {
        (2, 64): Tiles(128, 128, 8, 2),
        (2, 128): Tiles(128, 64, 8, 2),
        (2, 256): Tiles(64, 32, 8, 2),
        (4, 64): Tiles(128, 64, 8, 2),
    },
    ("sm90", "queries", True): {
        (2, 64): Tiles(128, 64, 8, 2),
        (2, 128): Tiles(128, 32, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(64, 32, 4, 2),
    },
    ("sm90", "keys", False): {
        (2, 64): Tiles(64, 128, 8, 2),
        (2, 128): Tiles(64, 128, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 64, 4, 2),
    },
    ("sm90", "keys", True): {
        (4, 32): Tiles(32, 64, 4, 2),
        (2, 64): Tiles(64, 128, 8, 2),
        (2, 128): Tiles(32, 64, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 32, 8, 1),
    },
    ("sm100", "forward", False): {
        (2, 64): Tiles(128, 64, 8, 3),
        (2, 128): Tiles(128, 64, 8, 2),
        (2, 256): Tiles(128, 32, 8, 2),
        (4, 64): Tiles(128, 64, 8, 2),
    },
    ("sm100", "forward", True): {
        (2, 64): Tiles(128, 64, 8, 2),
        (2, 128): Tiles(128, 64, 8, 2),
        (2, 256): Tiles(64, 32, 8, 2),
        (4, 64): Tiles(64, 32, 4, 2),
    },
    ("sm100", "queries", False): {
        (2, 64): Tiles(128, 128, 8, 2),
        (2, 128): Tiles(128, 64, 8, 2),
        (2, 256): Tiles(64, 32, 8, 2),
        (4, 64): Tiles(32, 32, 4, 2),
    },
    ("sm100", "queries", True): {
        (2, 64): Tiles(128, 32, 8, 2),
        (2, 128): Tiles(128, 32, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 32, 4, 2),
    },
    ("sm100", "keys", False): {
        (4, 32): Tiles(32, 64, 4, 2),
        (2, 64): Tiles(64, 128, 8, 2),
        (2, 128): Tiles(64, 128, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 32, 4, 1),
    },
    ("sm100", "keys", True): {
        (4, 32): Tiles(16, 64, 4, 1),
        (2, 64): Tiles(64, 128, 8, 2),
        (2, 128): Tiles(32, 128, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 32, 8, 1),
    },
    ("gfx942", "forward", False): {
        (2, 64): Tiles(128, 32, 4, 2),
        (2, 128): Tiles(128, 32, 4, 2),
        (2, 256): Tiles(64, 32, 4, 1),
        (4, 64): Tiles(128, 32, 8, 1),
    },
    ("gfx942", "forward", True): {
        (2, 32): Tiles(64, 16, 4, 1),
        (2, 64): Tiles(64, 16, 4, 1),
        (2, 128): Tiles(64, 16, 4, 1),
        (2, 256): Tiles(64, 16, 4, 1),
        (4, 64): Tiles(128, 32, 8, 1),
    },
    ("gfx942", "queries", False): {
        (4, 32): Tiles(64, 32, 4, 1),
        (2, 64): Tiles(64, 32, 4, 1),
        (2, 128): Tiles(64, 64, 4, 1),
        (2, 256): Tiles(64, 32, 4, 1),
        (4, 64): Tiles(64, 64, 4, 1),
    },
    ("gfx942", "queries", True): {
        (2, 32): Tiles(64, 16, 4, 1),
        (2, 64): Tiles(64, 32, 4, 1),
        (2, 128): Tiles(64, 16, 4, 1),
        (2, 256): Tiles(32, 16, 4, 1),
        (4, 64): Tiles(64, 32, 4, 1),
    },
    ("gfx942", "keys", False): {
        (2, 64): Tiles(32, 64, 4, 1),
        (2, 128): Tiles(32, 64, 4, 1),
        (2, 256): Tiles(16, 32, 4, 1),
        (4, 64): Tiles(32, 32, 4, 1),
    },
    ("gfx942", "keys", True): {
        (4, 32): Tiles(16, 64, 4, 1),
        (2, 64): Tiles(16, 64, 4, 1),
        (2, 128): Tiles(16, 64, 4, 1),
        (2, 256): Tiles(16, 32, 4, 1),
        (4, 64): Tiles(32, 64, 4, 1),
    },
    ("sm80", "bias", True): {
        (2, 64): Tiles(64, 32, 4, 2),
        (2, 128): Tiles(32, 32, 8, 2),
        (2, 256): Tiles(32, 32, 8, 1),
        (4, 64): Tiles(32, 32, 4, 2),
    },
    ("sm90", "bias", True): {
        (2, 64): Tiles(64, 64, 8, 2),
        (2, 128): Tiles(64, 64, 8, 2),
        (2, 256): Tiles(32, 32, 4, 1),
        (4, 64): Tiles(64, 32, 4, 2),
    },
    ("sm100", "bias", True): {
        (2, 64): Tiles(64, 64, 8, 2),
        (2, 128): Tiles(64, 32, 8, 2),
        (2, 256): Tiles(32, 32, 4, 1),
        (4, 64): Tiles(32, 32, 4, 2),
    },
    ("gfx942", "bias", True): {
        (2, 64): Tiles(64, 16, 4, 1),
        (2, 128): Tiles(64, 16, 4, 1),
        (2, 256): Tiles(32, 16, 4, 1),
        (4, 64): Tiles(64, 32, 4, 1),
    },
}  # fmt: skip


def tiles_for(arch: str, kernel: str, full: bool, size: int, width: int) -> Tiles:
    """The tiles of one launch: `size` bytes of the dtype, heads padded to `width`."""
    tiles = TILES[arch, kernel, full]
    return tiles[size, width] if (size, width) in tiles else tiles[size, 64]


PROGRAMS = {"sm80": 2 * 108, "sm90": 2 * 132, "sm100": 2 * 148, "gfx942": 2 * 304}  # two a core


def splits_for(arch: str, programs: int, keys: int) -> int:
    """Into how many parts the keys of few programs are split: no part below 256, no core idle."""
    return max(1, min(PROGRAMS[arch] // max(programs, 1), keys // 256, 64))
