"""Ridge regression in float64: one Gram matrix for all targets and the whole path of penalties."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class RidgeSystem:
    """argmin_v (1/n) |F v - y|^2 + penalty |v|^2, kept as the smaller of F F^T and F^T F.

    Args:
        gram: F F^T, (n, n), for the dual; or F^T F, (p, p), for the primal.
        right: y, (n, targets), for the dual; or F^T y, (p, targets), for the primal.
        samples: n.

    Example:
        >>> f = torch.randn(5, 3, dtype=torch.float64)
        >>> y = torch.randn(5, 1, dtype=torch.float64)
        >>> dual = f.T @ RidgeSystem(f @ f.T, y, 5).solve(0.1)
        >>> primal = RidgeSystem(f.T @ f, f.T @ y, 5).solve(0.1)
        >>> dual.allclose(primal)
        True
    """

    def __init__(
        self,
        gram: Float[Tensor, "size size"],
        right: Float[Tensor, "size targets"],
        samples: int,
    ):
        if samples < 2:
            raise ValueError(f"a fit needs at least 2 samples, got {samples}")
        if not right.isfinite().all():
            raise ValueError("labels must be finite")
        self.gram, self.right, self.samples = gram.double(), right.double(), samples

    def solve(self, penalty: float) -> Float[Tensor, "size targets"]:
        """The dual's coefficients, or the primal's weights.

        Raises:
            ValueError: the penalty is negative, or the system is singular.
        """
        if penalty < 0:
            raise ValueError(f"ridge must be at least 0, got {penalty}")
        system = self.gram.clone()
        system.diagonal().add_(self.samples * penalty)
        factor, failed = torch.linalg.cholesky_ex(system)
        if failed:
            raise ValueError(f"singular system at ridge {penalty}: set ridge > 0")
        return torch.cholesky_solve(self.right, factor)

    def path(
        self, penalties: Sequence[float], read: Float[Tensor, "rows size"]
    ) -> Float[Tensor, "penalties rows targets"]:
        """Predictions `read @ solve(penalty)` for every penalty; one factorisation serves each.

        Penalties too small for the system's rank give NaN, so that a choice passes them over.
        """
        out = []
        for penalty in penalties:
            try:
                out.append(read.double() @ self.solve(penalty))
            except ValueError:
                if penalty < 0:
                    raise
                out.append(torch.full((len(read), self.right.shape[1]), torch.nan).double())
        return torch.stack(out)


def leave_one_out(
    gram: Float[Tensor, "n n"], y: Float[Tensor, "n targets"], penalties: Sequence[float]
) -> Float[Tensor, "penalties targets"]:
    """Mean squared leave-one-out error of dual ridge for every penalty, from one decomposition.

    Example:
        >>> f = torch.randn(6, 3, dtype=torch.float64)
        >>> leave_one_out(f @ f.T, f[:, :1], (0.1, 1.0)).shape
        torch.Size([2, 1])
    """
    values, vectors = torch.linalg.eigh(gram.double())
    rotated = vectors.T @ y.double()
    out = []
    for penalty in penalties:
        inverse = 1 / (values.clamp_min(0) + len(y) * penalty)
        residual = vectors @ (inverse[:, None] * rotated)
        out.append((residual / (vectors.square() @ inverse)[:, None]).square().mean(0))
    return torch.stack(out)
