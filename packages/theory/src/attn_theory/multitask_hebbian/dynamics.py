"""Spin dynamics on the factors: O(K) per spin, all replicas at once, J never built."""

import ctypes
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from core_attn import bidirectional_linear_attention
from core_attn.native import Kernel

from .model import Network

KERNEL = Kernel("theory_glauber", Path(__file__).with_name("kernel"), ["attn_theory_glauber"])
TIE = 1e-9  # of a field times N, below which it cancels


class Sweep(ctypes.Structure):
    """A sweep's arguments; `Sweep` of kernel/glauber.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("spins", "replicas", "factors")),
        ("scale", ctypes.c_double),
        *(
            (name, ctypes.c_void_p)
            for name in ("order", "factor", "own", "uniform", "spin", "overlap")
        ),
    ]


class Chain(NamedTuple):
    """What a run of Glauber dynamics left.

    Attributes:
        spins: the last.
        mean: of the spins after each of the averaged sweeps.
        energy: H / N after every sweep.
    """

    spins: Float[np.ndarray, "spins replicas"]
    mean: Float[np.ndarray, "spins replicas"]
    energy: Float[np.ndarray, "sweeps replicas"]


def glauber(
    rng: np.random.Generator,
    network: Network,
    spins: Float[np.ndarray, "spins replicas"],
    beta: float,
    sweeps: int,
    *,
    averaged: int = 0,
) -> Chain:
    """Sequential Glauber dynamics, P(s = 1) = (1 + tanh(beta h)) / 2, in random order.

    Args:
        rng: draws orders and thresholds; replicas share the order, not the thresholds.
        network: the couplings.
        spins: where to start; not changed.
        beta: inverse temperature; np.inf follows the sign of h, ties keep the spin.
        sweeps: how many.
        averaged: the last sweeps, at most all, over which spins are averaged; 0 averages none.

    Raises:
        ValueError: beta is negative, spins are not +-1, or more sweeps are averaged than made.

    Example:
        >>> from attn_theory.multitask_hebbian import draw_patterns
        >>> rng = np.random.default_rng(0)
        >>> xi = draw_patterns(rng, 200, 1, 0.0)
        >>> chain = glauber(rng, Network.storing(xi), xi[..., 0], np.inf, 1)
        >>> bool((chain.spins == xi[..., 0]).all())
        True
    """
    if beta < 0:
        raise ValueError(f"beta must be at least 0, got {beta}")
    if not 0 <= averaged <= sweeps:
        raise ValueError(f"averaged must be from 0 to {sweeps}, the sweeps, got {averaged}")
    spins, mean = _checked(spins).copy(), np.zeros(spins.shape)
    state = State(network, spins)
    sweep_once = _native if KERNEL.missing() is None else _plain
    energy = np.zeros((sweeps, spins.shape[1]))
    for sweep in range(sweeps):
        order = rng.permutation(network.spins)
        uniform = np.zeros((0, 0)) if beta == np.inf else rng.random(spins.shape)
        sweep_once(state, order, uniform, beta)
        energy[sweep] = state.energy()
        if sweep >= sweeps - averaged:
            mean += state.spins
    return Chain(state.spins, mean / max(1, averaged), energy)


class State:
    """Spins, with what a sweep reads and keeps: A in single precision, |A_i|^2 and A^T s."""

    def __init__(self, network: Network, spins: Float[np.ndarray, "spins replicas"]):
        self.spins = np.ascontiguousarray(spins)
        self.factors = np.ascontiguousarray(network.factors, dtype=np.float32)
        self.own = np.einsum("nrf,nrf->nr", self.factors, self.factors, dtype=np.float64)
        self.overlap = np.einsum("nrf,nr->rf", self.factors, self.spins, dtype=np.float64)

    def energy(self) -> Float[np.ndarray, " replicas"]:
        """H / N, from what is kept."""
        return -0.5 * (np.square(self.overlap).sum(1) - self.own.sum(0)) / len(self.spins) ** 2


def _plain(state: State, order: np.ndarray, uniform: np.ndarray, beta: float) -> None:
    """A sweep in numpy: what the kernel computes."""
    n, a, spins = len(order), state.factors, state.spins
    with np.errstate(over="ignore"):
        for i in order:
            field = np.einsum("rf,rf->r", a[i], state.overlap) - state.own[i] * spins[i]
            if beta == np.inf:
                new = np.where(np.abs(field) <= TIE, spins[i], np.sign(field))
            else:
                new = np.where(uniform[i] * (1 + np.exp(-2 * beta / n * field)) < 1, 1.0, -1.0)
            state.overlap += a[i] * (new - spins[i])[:, None]
            spins[i] = new


def _native(state: State, order: np.ndarray, uniform: np.ndarray, beta: float) -> None:
    n, replicas, factors = state.factors.shape
    call = Sweep(spins=n, replicas=replicas, factors=factors, scale=2 * beta / n)
    arrays = {
        "order": order, "factor": state.factors, "own": state.own, "uniform": uniform,
        "spin": state.spins, "overlap": state.overlap,
    }  # fmt: skip
    for name, array in arrays.items():
        setattr(call, name, array.ctypes.data)
    KERNEL.run("attn_theory_glauber", call)


def sweeps_at_zero(
    network: Network,
    spins: Float[np.ndarray, "spins replicas"],
    sweeps: int,
    *,
    compat: Literal["rounded-ties"] | None = None,
) -> Float[np.ndarray, "steps spins replicas"]:
    """The start and the state after each zero-temperature sweep in the order i = 0 .. N-1.

    Args:
        network: the couplings; J is written out, so keep it small.
        spins: where to start.
        sweeps: how many.
        compat: None keeps a spin whose field cancels. "rounded-ties" lets what rounding leaves of
            such a field decide, its terms summed in order, as the recorded reference does.

    Raises:
        ValueError: spins are not +-1, or compat is unknown.

    Example:
        >>> network = Network.storing(np.ones((4, 1, 1)))
        >>> sweeps_at_zero(network, np.array([[1.0], [1.0], [1.0], [-1.0]]), 1)[1].ravel().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if compat not in (None, "rounded-ties"):
        raise ValueError(f"compat must be None or 'rounded-ties', got {compat!r}")
    tie = 1e-12 if compat is None else 0.0
    spins = _checked(spins).copy()
    couplings = np.stack([network.couplings(r) for r in range(spins.shape[1])], -1)
    states = [spins.copy()]
    for _ in range(sweeps):
        for i in range(network.spins):
            field = (couplings[i] * spins).cumsum(0)[-1]
            spins[i] = np.where(np.abs(field) <= tie, spins[i], np.sign(field))
        states.append(spins.copy())
    return np.stack(states)


def parallel_step(
    network: Network, spins: Float[np.ndarray, "spins replicas"]
) -> Float[np.ndarray, "spins replicas"]:
    """One synchronous zero-temperature (Little) step, a different dynamics from Glauber's.

    s' = sign(A (A^T s) / N - diag): linear attention with keys = values = factors, query = s.

    Example:
        >>> network = Network.storing(np.ones((4, 1, 1)))
        >>> parallel_step(network, np.array([[1.0], [1.0], [1.0], [-1.0]])).ravel().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    spins = _checked(spins)
    stored = torch.from_numpy(network.factors).permute(1, 2, 0).unsqueeze(1)
    query = torch.from_numpy(spins).T[:, None, None]
    field = bidirectional_linear_attention(query, stored, stored, scale=1 / network.spins)
    own = np.square(network.factors).sum(-1) / network.spins
    field = field[:, 0, 0].T.numpy() - own * spins
    return np.where(np.abs(field) < 1e-12, spins, np.sign(field))


def _checked(spins: np.ndarray) -> np.ndarray:
    if not (np.abs(spins) == 1).all():
        raise ValueError("spins must be +1 or -1")
    return np.asarray(spins, dtype=np.float64)
