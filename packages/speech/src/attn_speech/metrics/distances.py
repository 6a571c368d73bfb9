"""How far predicted frames are from true ones."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def log_mel_l1(
    predicted: Float[Tensor, "frames mels"],
    true: Float[Tensor, "true_frames mels"],
    *,
    align: bool = False,
) -> float:
    """The mean absolute difference of log mels.

    Args:
        predicted: log mels.
        true: log mels.
        align: whether time is warped; otherwise the frames that both have are compared one by one.
    """
    if align:
        cost = torch.cdist(predicted.double(), true.double(), p=1).numpy() / predicted.shape[1]
        return float(np.mean([cost[i, j] for i, j in warping_path(cost)]))
    frames = min(len(predicted), len(true))
    return float((predicted[:frames] - true[:frames]).abs().mean())


def mel_cepstral_distortion(
    predicted: Float[Tensor, "frames mels"],
    true: Float[Tensor, "true_frames mels"],
    *,
    align: bool = True,
    log_base: float = 10.0,
) -> float:
    """The distance of mel cepstra in decibels, along the path that warps one to the other.

    c is the orthonormal cosine transform of the natural log mel, and the distance of two frames
    10 / ln 10 sqrt(2 sum (c_k - c'_k)²) over k = 1 ... 13; the mean over the path is returned.
    Figures of other variants are not comparable.

    Args:
        predicted: log mels.
        true: log mels.
        align: whether time is warped; otherwise frames are compared one by one.
        log_base: of the log mels.

    Source: Kubichek, 1993, "Mel-cepstral distance measure for objective speech quality".

    Example:
        >>> mel_cepstral_distortion(torch.zeros(3, 20), torch.zeros(5, 20))
        0.0
    """
    unit = math.log(log_base)
    a, b = (_cepstrum(x.double() * unit) for x in (predicted, true))
    if not align:
        frames = min(len(a), len(b))
        return float(_decibels((a[:frames] - b[:frames]).norm(dim=1)).mean())
    cost = _decibels(torch.cdist(a, b)).numpy()
    path = warping_path(cost)
    return float(np.mean([cost[i, j] for i, j in path]))


def warping_path(cost: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of the cheapest way through a matrix of costs, from corner to corner.

    Source: Sakoe and Chiba, 1978.

    Example:
        >>> warping_path(np.array([[0.0, 9.0], [0.0, 9.0], [9.0, 0.0]]))
        [(0, 0), (1, 0), (2, 1)]
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(1, rows + 1):
        best = np.minimum(total[i - 1, 1:], total[i - 1, :-1])
        row, left = total[i], np.inf
        for j in range(1, columns + 1):
            left = cost[i - 1, j - 1] + min(best[j - 1], left)
            row[j] = left
    i, j, path = rows, columns, []
    while i and j:
        path.append((i - 1, j - 1))
        steps = {(i - 1, j - 1): total[i - 1, j - 1], (i - 1, j): total[i - 1, j],
                 (i, j - 1): total[i, j - 1]}  # fmt: skip
        i, j = min(steps, key=lambda step: steps[step])
    return path[::-1]


def _cepstrum(natural: Tensor) -> Tensor:
    bands = natural.shape[1]
    n, k = torch.arange(bands, dtype=torch.float64), torch.arange(1, 14, dtype=torch.float64)
    basis = math.sqrt(2 / bands) * torch.cos(math.pi / bands * (n[:, None] + 0.5) * k)
    return natural @ basis


def _decibels(distance: Tensor) -> Tensor:
    return 10 / math.log(10) * math.sqrt(2) * distance
