"""What a trained layer does, head by head."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from .model import SingleLayer

Role = Literal["+", "-", "dummy"]


@dataclass(frozen=True)
class HeadReport:
    """A trained layer read as a pair of kernel smoothers.

    Attributes:
        omega: mean of the first d diagonal entries of each KQ.
        mu: entry of each OV that reads the label.
        roles: "+" and "-" by the sign of omega; "dummy" where omega mu hardly counts.
        diagonal_share: |diag KQ_xx|^2 / |KQ_xx|_F^2 of each head, 0 where KQ is.
        diagonal_spread: variance of that diagonal.
        label_share: mu^2 / |OV|^2 of each head, 0 where OV is.
        zero_sum: |sum_h mu_h| / max_h |mu_h|; near 0 for a debiased predictor.
        step: sum_h mu_h omega_h, the step of the gradient descent the layer amounts to.
    """

    omega: Float[np.ndarray, " heads"]
    mu: Float[np.ndarray, " heads"]
    roles: tuple[Role, ...]
    diagonal_share: Float[np.ndarray, " heads"]
    diagonal_spread: Float[np.ndarray, " heads"]
    label_share: Float[np.ndarray, " heads"]
    zero_sum: float
    step: float

    @property
    def two_sided(self) -> bool:
        """Whether heads of both signs are at work."""
        return "+" in self.roles and "-" in self.roles


@torch.no_grad()
def analyse(layer: SingleLayer, *, dummy: float = 0.05) -> HeadReport:
    """Reads a trained layer of one output.

    The query's last column of KQ is left out: it meets a zero and is never trained.

    Args:
        layer: trained, or loaded from a checkpoint.
        dummy: heads whose |mu omega| is below this share of the largest are dummies.

    Raises:
        ValueError: the layer has several outputs.

    Example:
        >>> from attn_theory.icl_linear import ICLConfig
        >>> len(analyse(SingleLayer(ICLConfig(d=3, heads=4))).roles)
        4
    """
    if layer.config.outputs != 1:
        raise ValueError(f"analyse reads layers of one output, this one has {layer.config.outputs}")
    d = layer.config.d
    kq = layer.key_query().double().cpu().numpy()[:, :d, :d]
    ov = layer.output_value().double().cpu().numpy()[:, 0]
    diagonal = kq.diagonal(axis1=1, axis2=2)
    omega, mu = diagonal.mean(1), ov[:, d]
    work = np.abs(mu * omega)
    roles: list[Role] = [
        "dummy" if w < dummy * work.max() else "+" if o > 0 else "-"
        for w, o in zip(work, omega, strict=True)
    ]
    return HeadReport(
        omega,
        mu,
        tuple(roles),
        share(diagonal**2, kq**2),
        diagonal.var(1),
        share(mu[:, None] ** 2, ov**2),
        float(abs(mu.sum()) / np.abs(mu).max()),
        float(mu @ omega),
    )


def share(
    part: Float[np.ndarray, "heads ..."], whole: Float[np.ndarray, "heads ..."]
) -> Float[np.ndarray, " heads"]:
    """Sum of `part` over that of `whole`, head by head; 0 where a head has no weights."""
    above, below = (x.reshape(len(x), -1).sum(1) for x in (part, whole))
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
