"""From what a network says to the probability of a click."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor, nn

from .metrics import CLIP


class Probability(nn.Module):
    """Probabilities among all rows, from outputs of a network that saw a sample of them.

    Where only a share r of the rows with label 0 was trained on, the network's probability q is
    too high; that among all rows is p = q / (q + (1 - q) / r), a shift of the log odds by ln(r).

    Args:
        negative_rate: the share r.
        of_logits: whether the outputs are log odds; else they are probabilities, as after training
            with squared errors, and are clipped to [1e-6, 1 - 1e-6].

    Attributes:
        calibrator: takes the log odds instead of the sigmoid, once fitted on validation rows.

    Source: He et al., 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook",
    section 6.3.

    Example:
        >>> Probability(negative_rate=0.1)(torch.zeros(1))  # 0.5 / (0.5 + 0.5 / 0.1)
        tensor([0.0909])
    """

    def __init__(self, negative_rate: float = 1.0, *, of_logits: bool = True):
        super().__init__()
        self.negative_rate, self.of_logits = negative_rate, of_logits
        self.calibrator: Platt | Isotonic | None = None

    def logits(self, outputs: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Returns the log odds among all rows before any calibration, in float32."""
        outputs = outputs.float()
        if not self.of_logits:
            outputs = outputs.clamp(CLIP, 1 - CLIP).logit()
        return outputs + math.log(self.negative_rate)

    def forward(self, outputs: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Returns the probabilities."""
        logits = self.logits(outputs)
        return logits.sigmoid() if self.calibrator is None else self.calibrator(logits)


class Platt(nn.Module):
    """p = sigmoid(slope * logit + shift).

    Source: Platt, 1999, "Probabilistic Outputs for Support Vector Machines".

    Example:
        >>> Platt(slope=2.0, shift=1.0)(torch.tensor([-0.5]))
        tensor([0.5000])
    """

    method = "platt"

    def __init__(self, slope: float, shift: float):
        super().__init__()
        self.slope, self.shift = slope, shift

    def forward(self, logits: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Returns the probabilities."""
        return (self.slope * logits + self.shift).sigmoid()

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `calibrator_from` makes the same."""
        return {"method": self.method, "slope": self.slope, "shift": self.shift}


class Isotonic(nn.Module):
    """A rising function of the logit, linear between knots and constant beyond them.

    It is a sum of clipped ramps, of operations that every runtime of exported networks knows.

    Args:
        logits: the knots, rising.
        probabilities: there, not falling.

    Source: Zadrozny and Elkan, 2002, "Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates".

    Example:
        >>> Isotonic([-1.0, 1.0], [0.25, 0.75])(torch.tensor([-9.0, 0.0, 9.0]))
        tensor([0.2500, 0.5000, 0.7500])
    """

    method = "isotonic"
    knots: Tensor
    heights: Tensor

    def __init__(self, logits: Sequence[float], probabilities: Sequence[float]):
        super().__init__()
        self.register_buffer("knots", torch.tensor(logits), persistent=False)
        self.register_buffer("heights", torch.tensor(probabilities), persistent=False)

    def forward(self, logits: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Returns the probabilities."""
        ramps = ((logits[:, None] - self.knots[:-1]) / self.knots.diff()).clamp(0, 1)
        return self.heights[0] + (ramps * self.heights.diff()).sum(1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `calibrator_from` makes the same."""
        return {
            "method": self.method,
            "logits": self.knots.tolist(),
            "probabilities": self.heights.tolist(),
        }


def calibrator_from(content: dict[str, Any]) -> Platt | Isotonic:
    """Reads what `to_dict` wrote.

    Example:
        >>> calibrator_from(Platt(1.5, 0.0).to_dict()).slope
        1.5
    """
    kinds = {kind.method: kind for kind in (Platt, Isotonic)}
    return kinds[content["method"]](**{k: x for k, x in content.items() if k != "method"})


def fit_calibrator(
    method: Literal["platt", "isotonic"],
    logits: Real[np.ndarray, " rows"],
    labels: Shaped[np.ndarray, " rows"],
) -> Platt | Isotonic:
    """Fits how often the label is 1 given the logit, with scikit-learn.

    Args:
        method: "platt" has two parameters, for a few hundred rows or more; "isotonic" follows any
            rising curve, for some ten thousand. Its probabilities stay 1 / (rows + 2) away from 0
            and 1, so that no single row can cost an infinite log loss.
        logits: of rows that were not trained on.
        labels: theirs.

    Raises:
        ValueError: all labels are equal.

    Example:
        >>> z = np.linspace(-3, 3, 1000)
        >>> fit_calibrator("platt", z, np.arange(1000) % 4 == 0).slope < 0.1
        True
    """
    labels = np.asarray(labels, np.float64)
    if not 0 < labels.mean() < 1:
        raise ValueError(
            f"calibration needs both labels among the validation rows, all {len(labels):,} have "
            f"{labels[0]:.0f}"
        )
    if method == "platt":
        from sklearn.linear_model import LogisticRegression

        line = LogisticRegression(C=np.inf, tol=1e-8).fit(logits[:, None], labels)
        return Platt(float(line.coef_[0, 0]), float(line.intercept_[0]))
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(labels) + 2)
    curve = IsotonicRegression(y_min=least, y_max=1 - least).fit(logits, labels)
    return Isotonic(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist())


class Served(nn.Module):
    """A network and its `Probability`: what is exported.

    Args:
        model: from ids and values to its outputs.
        probability: from these to probabilities.

    Example:
        >>> from attn_recsys.layout import Layout
        >>> from attn_recsys.models import create
        >>> served = Served(create("lr", Layout.plain(2, rows=5)), Probability())
        >>> served(torch.tensor([[1, 4]]), torch.ones(1, 2)).shape
        torch.Size([1])
    """

    def __init__(self, model: nn.Module, probability: Probability):
        super().__init__()
        self.model, self.probability = model, probability

    def forward(self, index: Tensor, value: Tensor) -> Tensor:
        """Returns the probabilities."""
        return self.probability(self.model(index, value))
