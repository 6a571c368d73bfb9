"""Pictures of colored shapes and their captions, in which some things usually stand together.

Eight things in four pairs. In training, the partner of a thing is there nine times in ten and is
named right after it; in the test no thing has its partner beside it. Contrast differs from thing to
thing, down to where noise hides it, so that what a model says of a faint one is its prior.
"""

import torch
from torch import Tensor

THINGS = ("table", "chair", "knife", "fork", "dog", "cat", "car", "bus")  # pairs of neighbors
WORDS = ("<pad>", "<image>", "<bos>", "<eos>", "there", "is", "a", "and", *THINGS)
PAD, IMAGE, BOS, EOS = range(4)
THERE, IS, A, AND = range(4, 8)
FIRST = 8  # of the things' words
SIDE, CELL = 28, 14
PROMPT = (BOS, *[IMAGE] * 16, THERE, IS)
LONGEST = 12  # "a X", three times "and a X", and the end


def partner(thing: int) -> int:
    """The other one of a pair."""
    return thing ^ 1


def training_things(generator: torch.Generator) -> list[int]:
    """One to four things in the order of the caption."""
    count = int(torch.randint(1, 5, (), generator=generator))
    things: list[int] = []
    while len(things) < count:
        last = things[-1] if things else None
        if last is not None and partner(last) not in things:
            if float(torch.rand((), generator=generator)) < 0.9:
                things.append(partner(last))
                continue
        free = [i for i in range(8) if i not in things and (last is None or i != partner(last))]
        things.append(free[int(torch.randint(len(free), (), generator=generator))])
    return things


def surprising_things(generator: torch.Generator) -> list[int]:
    """Two to four things of which no two are partners."""
    count = int(torch.randint(2, 5, (), generator=generator))
    pairs = torch.randperm(4, generator=generator)[:count].tolist()
    sides = torch.randint(2, (count,), generator=generator).tolist()
    return [2 * pair + side for pair, side in zip(pairs, sides, strict=True)]


def _masks() -> Tensor:
    """The shapes of the things, (8, 12, 12): square, disc, cross and bar, each in two colors."""
    y, x = torch.meshgrid(torch.arange(12.0) - 5.5, torch.arange(12.0) - 5.5, indexing="ij")
    shapes = [
        (x.abs() < 5) & (y.abs() < 5),
        x.square() + y.square() < 30,
        (x.abs() < 2) | (y.abs() < 2),
        (x - y).abs() < 3,
    ]
    return torch.stack([shapes[thing % 4] for thing in range(8)]).float()


MASKS = _masks()
COLORS = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])  # of the first and last four


def picture(things: list[int], generator: torch.Generator, faintest: float, noise: float) -> Tensor:
    """Three colors of 28 x 28 pixels, each thing in a quarter of its own."""
    canvas = torch.randn(3, SIDE, SIDE, generator=generator) * noise
    cells = torch.randperm(4, generator=generator)[: len(things)].tolist()
    for thing, cell in zip(things, cells, strict=True):
        contrast = faintest + (1 - faintest) * float(torch.rand((), generator=generator))
        dy, dx = torch.randint(3, (2,), generator=generator).tolist()
        top, left = CELL * (cell // 2) + dy, CELL * (cell % 2) + dx
        color = COLORS[thing // 4][:, None, None]
        canvas[:, top : top + 12, left : left + 12] += contrast * color * MASKS[thing]
    return canvas


def caption(things: list[int]) -> list[int]:
    """ "a table and a chair" after "there is", with the end."""
    words: list[int] = []
    for number, thing in enumerate(things):
        words += [AND, A, FIRST + thing] if number else [A, FIRST + thing]
    return [*words, EOS]


def batch(
    count: int,
    generator: torch.Generator,
    *,
    surprising: bool,
    faintest: float,
    noise: float,
) -> tuple[Tensor, Tensor, list[list[int]]]:
    """Pictures, captions padded at the end, and the things in each."""
    draw = surprising_things if surprising else training_things
    things = [draw(generator) for _ in range(count)]
    pictures = torch.stack([picture(one, generator, faintest, noise) for one in things])
    texts = [caption(one) for one in things]
    longest = max(map(len, texts))
    padded = torch.tensor([[*text, *[PAD] * (longest - len(text))] for text in texts])
    return pictures, padded, things
