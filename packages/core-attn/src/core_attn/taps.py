"""Places in a model where its attention can be watched and changed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn


class Tap(nn.Module):
    """An identity module on which forward hooks record or edit a tensor.

    It has no parameters and no buffers, so a state dict does not know of it.

    Example:
        >>> import torch
        >>> tap = Tap()
        >>> tap.listening
        False
        >>> handle = tap.register_forward_hook(lambda module, args, x: 2 * x)
        >>> tap.listening, tap(torch.ones(1))
        (True, tensor([2.]))
    """

    @property
    def listening(self) -> bool:
        """Whether any forward hook is registered; costly tensors are computed only then."""
        return len(self._forward_hooks) > 0

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` itself; the hooks see it."""
        return x


class Reduction(Protocol):
    """A running summary of the tensors a tap sees, in constant memory."""

    def update(self, x: Tensor) -> None:
        """Takes one more tensor into account."""
        ...

    def compute(self) -> Tensor:
        """Returns the summary of what came so far."""
        ...
