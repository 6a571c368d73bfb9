"""The checked arguments of one call of `pluecker_mean`."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import check_float, check_tensor


class PlueckerCall(NamedTuple):
    """Arguments of `pluecker_mean` after its checks."""

    z: Tensor
    offsets: tuple[int, ...]
    eps: float

    @property
    def pairs(self) -> Tensor:
        """The coordinates' features i and j, (2, dim (dim - 1) / 2)."""
        dim = self.z.shape[-1]
        return torch.triu_indices(dim, dim, 1, device=self.z.device)

    def counts(self) -> Tensor:
        """How many offsets lead inside the text from each token, at least 1; (tokens, 1)."""
        tokens = self.z.shape[1]
        place = torch.arange(tokens, device=self.z.device)
        inside = [(place >= d) & (place - d < tokens) for d in self.offsets]
        return torch.stack(inside).sum(0).clamp(min=1)[:, None]


def check(z, offsets, eps) -> PlueckerCall:
    """Checks the arguments and returns them in their normal form."""
    check_tensor("z", z)
    check_float(z=z)
    if z.dim() != 3 or z.shape[-1] < 2:
        raise ValueError(f"z must be (batch, tokens, dim) of dim 2 or more, got {tuple(z.shape)}")
    offsets = tuple(offsets)
    for offset in offsets:
        if not isinstance(offset, int) or isinstance(offset, bool):
            raise TypeError(f"offsets must be integers, got {offset!r}")
    if not offsets or 0 in offsets or len(set(offsets)) < len(offsets):
        raise ValueError(f"offsets must be distinct and not 0, one or more, got {offsets}")
    if not eps > 0:
        raise ValueError(f"eps must be above 0, got {eps}")
    return PlueckerCall(z, offsets, float(eps))
