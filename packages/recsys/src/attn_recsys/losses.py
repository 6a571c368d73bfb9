"""Losses of the official code."""

import torch
from jaxtyping import Float
from torch import Tensor


def official_log_loss(
    logits: Float[Tensor, " batch"], labels: Float[Tensor, " batch"], eps: float = 1e-7
) -> Float[Tensor, ""]:
    """Mean of -y log(p + eps) - (1 - y) log(1 - p + eps) with p = sigmoid(logit).

    Source: official AutoInt code (tf.losses.log_loss).

    Example:
        >>> official_log_loss(torch.zeros(1), torch.ones(1))
        tensor(0.6931)
    """
    p = torch.sigmoid(logits)
    return -(labels * (p + eps).log() + (1 - labels) * (1 - p + eps).log()).mean()


def official_mse(
    logits: Float[Tensor, " batch"], labels: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Half the sum of squared errors of the raw output (tf.nn.l2_loss).

    Example:
        >>> official_mse(torch.zeros(2), torch.ones(2))
        tensor(1.)
    """
    return (labels - logits).square().sum() / 2
