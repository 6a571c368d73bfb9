"""Whether attention runs along the text, and what it skipped or read twice."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Diagonality(NamedTuple):
    """How far heads run along the diagonal.

    Attributes:
        focus: the mean over steps of the largest weight, of each layer and head.
        band: the share of weight within a tenth of the diagonal, of each layer and head.
        monotonic: the share of steps that do not go back, of each layer and head.
    """

    focus: Float[Tensor, "layers heads"]
    band: Float[Tensor, "layers heads"]
    monotonic: Float[Tensor, "layers heads"]

    def best(self) -> tuple[int, int]:
        """The layer and the head with most weight along the diagonal, focused ones first."""
        score = self.band * self.focus
        return divmod(int(score.argmax()), score.shape[1])


def diagonality(pattern: Float[Tensor, "layers heads steps tokens"]) -> Diagonality:
    """Measures one text's attention; a head stuck on a token is focused but has no band.

    Source: Ren et al., 2019, "FastSpeech", arXiv 1905.09263, eq. (5), for the focus rate.

    Example:
        >>> measured = diagonality(torch.eye(8)[None, None])
        >>> float(measured.focus), float(measured.band), measured.best()
        (1.0, 1.0, (0, 0))
    """
    steps, tokens = pattern.shape[2:]
    at = torch.arange(steps)[:, None] / steps - torch.arange(tokens) / tokens
    near = (at.abs() <= 0.1).to(pattern)
    total = pattern.sum((2, 3)).clamp(min=1e-9)
    place = pattern.argmax(-1)
    moves = place[..., 1:] >= place[..., :-1]
    monotonic = moves.float().mean(-1) if steps > 1 else torch.ones(pattern.shape[:2])
    return Diagonality(pattern.amax(-1).mean(-1), (pattern * near).sum((2, 3)) / total, monotonic)


def durations(pattern: Float[Tensor, "steps tokens"]) -> Int[Tensor, " tokens"]:
    """The number of steps that read each token most.

    Example:
        >>> durations(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
        tensor([2, 1])
    """
    return pattern.argmax(-1).bincount(minlength=pattern.shape[1])


class Reading(NamedTuple):
    """How the words of a text were read.

    Attributes:
        skipped: numbers of words that no step read.
        repeated: numbers of words that were read again after a later one.
    """

    skipped: list[int]
    repeated: list[int]


def reading(pattern: Float[Tensor, "steps tokens"], owners: list[int | None]) -> Reading:
    """Which words attention skipped or returned to.

    A word counts as read if some step puts at least a fifth of its weight on its tokens. It is
    repeated if, after a later word was the most read one, it is so again for two steps or more.

    Args:
        pattern: of the head that runs along the text.
        owners: the word of each token, None for pauses; further tokens (the end) belong to none.

    Example:
        >>> reading(torch.eye(3)[[0, 2, 2]], [0, 1, 2])
        Reading(skipped=[1], repeated=[])
    """
    words = 1 + max((owner for owner in owners if owner is not None), default=-1)
    weights = pattern.new_zeros(len(pattern), words)
    for token, owner in enumerate(owners):
        if owner is not None:
            weights[:, owner] += pattern[:, token]
    read = weights.amax(0) >= 0.2
    skipped = [word for word in range(words) if not bool(read[word])]
    repeated: list[int] = []
    furthest, back = -1, 0
    for row in weights:
        word = int(row.argmax()) if words and float(row.max()) >= 0.2 else None
        if word is None:
            continue
        back = back + 1 if word < furthest else 0
        if back == 2 and word not in repeated:
            repeated.append(word)
        furthest = max(furthest, word)
    return Reading(skipped, sorted(repeated))
