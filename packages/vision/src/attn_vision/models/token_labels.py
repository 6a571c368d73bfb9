"""Training with a label for every token, and boxes of tokens that two images exchange."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .tokens import TokenState


class Box(NamedTuple):
    """Rows top to bottom and columns left to right of a map, the ends excluded.

    Example:
        >>> Box(1, 3, 0, 2).area, Box(1, 3, 0, 2).scaled(8)
        (4, Box(top=8, bottom=24, left=0, right=16))
    """

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def draw(cls, grid: tuple[int, int], generator: torch.Generator | None = None) -> "Box":
        """A box of a uniformly distributed share of the grid around a random place."""
        share, row, column = torch.rand(3, generator=generator).tolist()
        ends = []
        for size, place in zip(grid, (row, column), strict=True):
            side, center = int(size * share**0.5), int(size * place)
            ends += [max(center - side // 2, 0), min(center + side // 2, size)]
        return cls(*ends)

    def scaled(self, factor: int) -> "Box":
        """The same box of a finer map."""
        return Box(*(factor * end for end in self))

    @property
    def area(self) -> int:
        """Positions inside."""
        return (self.bottom - self.top) * (self.right - self.left)


class TokenScores(NamedTuple):
    """Scores of a model with token labels.

    Attributes:
        classes: of the class token, (batch, classes).
        tokens: of all others, (batch, tokens, classes).
        box: where the tokens came from the batch's mirror image; None for nowhere.
    """

    classes: Float[Tensor, "batch classes"]
    tokens: Float[Tensor, "batch tokens classes"]
    box: Box | None


def swapped(state: TokenState, box: Box) -> TokenState:
    """Tokens whose box is that of the batch's mirror image.

    Raises:
        ValueError: the tokens lie on no grid.
    """
    if state.grid is None:
        raise ValueError("a box needs tokens on a grid")
    inside = torch.zeros(*state.grid, dtype=torch.bool, device=state.tokens.device)
    inside[box.top : box.bottom, box.left : box.right] = True
    return state.with_tokens(
        torch.where(inside.flatten()[:, None], state.tokens.flip(0), state.tokens)
    )


def token_label_loss(
    scores: TokenScores,
    targets: Float[Tensor, "batch classes"] | Float[Tensor, "batch classes columns"],
    class_weight: float = 1.0,
    token_weight: float = 0.5,
) -> Float[Tensor, ""]:
    """Cross entropy of the class token and of all others with soft targets.

    Args:
        scores: of `SpectFormerH.token_scores`.
        targets: probabilities of the classes, one for the image and all its tokens; or columns of
            them, of which number 1 is the image's and those from 2 on are the tokens'.
        class_weight: of the class token's part.
        token_weight: of the tokens' part, their mean.

    Raises:
        ValueError: there are not as many columns as tokens.

    Source: Jiang et al., 2021, "All Tokens Matter: Token Labeling for Training Better Vision
    Transformers", arXiv 2104.10858, eqs. (4) and (5).

    Example:
        >>> import torch
        >>> scores = TokenScores(torch.zeros(2, 4), torch.zeros(2, 9, 4), Box(0, 1, 0, 2))
        >>> token_label_loss(scores, torch.eye(4)[:2]).item() / torch.tensor(4.0).log().item()
        1.5
    """
    tokens = scores.tokens.shape[1]
    if targets.dim() == 3:
        if targets.shape[2] != tokens + 2:
            raise ValueError(
                f"targets must have {tokens + 2} columns for {tokens} tokens, got "
                f"{targets.shape[2]}"
            )
        of_image, of_tokens = targets[..., 1], targets[..., 2:].transpose(1, 2)
    else:
        of_image, of_tokens = targets, targets[:, None].expand(-1, tokens, -1)
    if scores.box is not None:
        mixed = scores.box.area / tokens
        of_image = (1 - mixed) * of_image + mixed * of_image.flip(0)
    image = F.cross_entropy(scores.classes, of_image)
    each = F.cross_entropy(scores.tokens.flatten(0, 1), of_tokens.flatten(0, 1))
    return class_weight * image + token_weight * each
