"""Batch norm whose statistics are updated once per step, in one process and over several."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class _Once(nn.Module):
    """Leaves the statistics alone where a backward pass computes activations anew.

    Activation checkpointing runs a forward pass twice; the second is not another batch.
    """

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The normalized map."""
        if torch.compiler.is_compiling() or not (self.training and _in_backward()):
            return super().forward(x)
        own: Any = self
        names = ("running_mean", "running_var", "num_batches_tracked")
        kept = {name: getattr(own, name) for name in names}
        for name, statistic in kept.items():
            setattr(own, name, statistic.clone())
        y = super().forward(x)
        for name, statistic in kept.items():
            setattr(own, name, statistic)
        return y


class BatchNorm2d(_Once, nn.BatchNorm2d):
    """torch's `BatchNorm2d`, right under activation checkpointing too.

    Raises:
        ValueError: in training, a single value per channel.

    Example:
        >>> BatchNorm2d(3)(torch.randn(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The normalized map."""
        if self.training and x.shape[0] == 1:
            if x.shape[2] * x.shape[3] == 1:
                raise ValueError(
                    "batch norm needs more than 1 value per channel in training: take larger "
                    "batches or images"
                )
            # Of one image, torch 2.14 misreads maps and gradients on a CPU that lie channels last.
            y = super().forward(x.contiguous())
            if y.requires_grad and not torch.compiler.is_compiling():
                y.register_hook(lambda grad: None if grad is None else grad.contiguous())
            return y
        return super().forward(x)


class SyncBatchNorm(_Once, nn.SyncBatchNorm):
    """torch's `SyncBatchNorm`, likewise; it trains on GPUs only."""


def synchronized(model: nn.Module) -> nn.Module:
    """The model with statistics over the batches of all processes; its weights stay the same ones.

    Example:
        >>> net = synchronized(nn.Sequential(nn.ReLU(), BatchNorm2d(3)))
        >>> [type(part).__name__ for part in net]
        ['ReLU', 'SyncBatchNorm']
    """
    if isinstance(model, BatchNorm2d):
        norm = SyncBatchNorm(model.num_features, model.eps, model.momentum)
        norm._parameters, norm._buffers = model._parameters, model._buffers
        return norm.train(model.training)
    for name, part in model.named_children():
        setattr(model, name, synchronized(part))
    return model


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1  # as torch's own FSDP asks
