"""The tiles that the kernels of attention over lists run with; `nox -s kernels` compiles them.

They serve every GPU: those that leave all values in registers on each, as far as there are such.
"""

from typing import NamedTuple

from .._triton_host import Tiles, power_of_2

# (kernel, full): {(bytes of the dtype, head): tiles} of groups with more than one member
TILES = {
    ("forward", False): {
        (2, 64): Tiles(64, 64, 4, 2), (2, 128): Tiles(64, 32, 8, 2), (4, 64): Tiles(32, 32, 4, 2),
    },
    ("forward", True): {
        (2, 64): Tiles(64, 32, 8, 2), (2, 128): Tiles(32, 32, 8, 1), (4, 64): Tiles(16, 32, 4, 1),
    },
    ("backward", False): {
        (2, 64): Tiles(64, 32, 8, 1), (2, 128): Tiles(32, 32, 8, 1), (4, 64): Tiles(16, 32, 4, 1),
    },
    ("backward", True): {
        (2, 64): Tiles(32, 32, 8, 1), (2, 128): Tiles(16, 32, 8, 1), (4, 64): Tiles(16, 32, 8, 1),
    },
}  # fmt: skip
SMALLER = {  # GPUs with room for fewer queries and keys
    ("sm80", "backward"): Tiles(32, 32, 8, 1),
    ("gfx942", "forward"): Tiles(32, 32, 4, 1),
    ("gfx942", "backward"): Tiles(16, 16, 4, 1),
}
SINGLE = {  # a query with a list of its own: sums of products, without tensor cores
    ("forward", 64): Tiles(1, 32, 2, 2),
    ("forward", 128): Tiles(1, 32, 4, 2),
    ("backward", 64): Tiles(1, 16, 2, 1),
    ("backward", 128): Tiles(1, 16, 4, 1),
}
MAX_DIM = {2: 128, 4: 64}  # channels of a head by bytes of the dtype


class Problem(NamedTuple):
    """What decides on the tiles of a call."""

    size: int  # bytes of the dtype
    dim: int
    members: int
    picks: int
    full: bool  # whether there is a bias, dropout, or what is beside the list, all of which cost

    @property
    def width(self) -> int:
        """The head dim, padded."""
        return max(16, power_of_2(self.dim))


def tiles_for(arch: str, kernel: str, problem: Problem) -> Tiles:
    """The table's tiles, smaller where the lists are."""
    column = 64 if problem.width <= 64 else 128
    if problem.members == 1:
        tiles = SINGLE[kernel, column]
    else:
        tiles = TILES[kernel, problem.full][problem.size, column]
        tiles = tiles._replace(queries=min(tiles.queries, max(16, power_of_2(problem.members))))
    if (most := SMALLER.get((arch, kernel))) is not None:
        tiles = Tiles(*map(min, tiles, most))
    return tiles._replace(keys=min(tiles.keys, max(16, power_of_2(problem.picks))))
