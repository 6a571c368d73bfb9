"""LIF: leaky integrate-and-fire neurons along the tokens."""

from jaxtyping import Float
from torch import Tensor

from .._dispatch import Backend, Operator, offer_of
from . import cpu, reference, triton_backend
from .call import check

LIF = Operator(
    "lif",
    Backend("cpu", offer_of(cpu.run, cpu.refuses, cpu.reluctant)),
    Backend(
        "triton",
        offer_of(triton_backend.run, triton_backend.refuses, triton_backend.reluctant),
    ),
    Backend("reference", offer_of(reference.run), plain=True),
)


def lif(
    x: Float[Tensor, "batch tokens channels"],
    *,
    tau: float = 2.0,
    threshold: float = 1.0,
    state: Float[Tensor, "batch channels"] | None = None,
) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch channels"]]:
    r"""Leaky integrate-and-fire neurons: h = v + (x - v)/tau; s = [h >= threshold]; v = (1 - s) h.

    Backward, a spike has the slope of an arc tangent, 1 / (1 + (pi (h - threshold))^2), and the
    gradient also goes through the reset.

    Args:
        x: input currents.
        tau: time constant in tokens, at least 1.
        threshold: of the membrane, above 0.
        state: the membranes before the first token; zeros by default.

    Returns:
        The spikes, 0 or 1, in the dtype of `x`, and the membranes after the last token in at least
        float32.

    Raises:
        TypeError: an argument is not a floating tensor.
        ValueError: shapes, dtypes, devices or values that do not fit, or a state that holds NaN.

    Source: Fang et al., 2021, "Incorporating Learnable Membrane Time Constant to Enhance Learning
        of Spiking Neural Networks", arXiv 2007.05785, eqs. (3), (8), (9) and (12).

    Example:
        >>> import torch
        >>> spikes, membrane = lif(torch.tensor([[[1.0], [2.0], [0.5]]]))
        >>> spikes.flatten().tolist(), membrane.item()
        ([0.0, 1.0, 0.0], 0.25)
    """
    return LIF(check(x, tau, threshold, state))
