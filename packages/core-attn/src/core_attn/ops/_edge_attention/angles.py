"""Legendre polynomials of the angles between the edges of an atom."""

import torch
from jaxtyping import Float
from torch import Tensor


def angle_legendre(
    direction: Float[Tensor, "atoms edges 3"], degrees: int, *, right_angle: bool = False
) -> list[Float[Tensor, "_atoms _edges _edges"]]:
    """P_l of the cosine between any two directions, l < `degrees`; 0 for l > 0 with a zero vector.

    Args:
        direction: unit vectors, or zero.
        degrees: how many polynomials.
        right_angle: whether a zero vector counts as at right angles to all others, as in the
            official angle bias, and not as without an angle.

    Source: l P_l = (2l - 1) c P_{l-1} - (l - 1) P_{l-2}, Bonnet's recursion.

    Example:
        >>> x = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]]])
        >>> angle_legendre(x, 3)[2][0].tolist()
        [[1.0, -0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    cosine = direction @ direction.transpose(1, 2)
    real = (direction.detach().square().sum(-1) > 0.5).to(direction.dtype)
    both = torch.ones_like(cosine) if right_angle else real[:, :, None] * real[:, None, :]
    values = [torch.ones_like(cosine), cosine]
    for degree in range(2, degrees):
        low = (degree - 1) * both * values[degree - 2]
        values.append(((2 * degree - 1) * cosine * values[degree - 1] - low) / degree)
    return values[:degrees]
