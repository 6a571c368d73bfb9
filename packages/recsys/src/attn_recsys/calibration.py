"""From what a network says to the probability of a click."""

import math

from jaxtyping import Float
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

    Source: He et al., 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook",
    section 6.3.

    Example:
        >>> import torch
        >>> Probability(negative_rate=0.1)(torch.zeros(1))  # 0.5 / (0.5 + 0.5 / 0.1)
        tensor([0.0909])
    """

    def __init__(self, negative_rate: float = 1.0, *, of_logits: bool = True):
        super().__init__()
        self.negative_rate, self.of_logits = negative_rate, of_logits

    def logits(self, outputs: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Returns the log odds among all rows, in float32."""
        outputs = outputs.float()
        if not self.of_logits:
            outputs = outputs.clamp(CLIP, 1 - CLIP).logit()
        return outputs + math.log(self.negative_rate)

    def forward(self, outputs: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Returns the probabilities."""
        return self.logits(outputs).sigmoid()


class Served(nn.Module):
    """A network and its `Probability`: what is exported.

    Args:
        model: from ids and values to its outputs.
        probability: from these to probabilities.
    """

    def __init__(self, model: nn.Module, probability: Probability):
        super().__init__()
        self.model, self.probability = model, probability

    def forward(self, index: Tensor, value: Tensor) -> Tensor:
        """Returns the probabilities."""
        return self.probability(self.model(index, value))
