"""What both releases of EScAIP are configured by."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .features import Basis
from .parts import Activation, Norm

if TYPE_CHECKING:
    from .network import Network


@dataclass(frozen=True)
class BaseConfig:
    """Settings that v1 and v2 share.

    Args:
        dim: features of nodes and edges.
        depth: blocks.
        heads: attention heads.
        forces: whether forces are the energy's gradient or a head of their own.
        elements: atomic numbers below this are known.
        cutoff: radius of the graph, in A.
        activation: of every hidden layer.
        norm: of every normalisation.
        atom_dim: features of an atomic number.
        order_size: degrees of the bond-orientational order.
        order_dim: features made of it.
        basis: functions in which distances are expanded.
        distance_size: their number.
        distance_dim: features made of them.
        ffn_width: inner width of the blocks' feed-forward networks, in dim.
        readout_width: likewise of the readouts.
        output_width: likewise of the heads.
        energy_reduce: how atoms' energies make a structure's.
        dropout: of hidden features, in training.
        attention_dropout: of attention weights, in training.
        drop_path: probability of skipping a block's branches for a structure, in training.

    Raises:
        ValueError: numbers that do not fit.
    """

    dim: int = 512
    depth: int = 6
    heads: int = 8
    forces: Literal["gradient", "direct"] = "gradient"
    elements: int = 119
    cutoff: float = 6.0
    activation: Activation = "gelu"
    norm: Norm = "rms"
    atom_dim: int = 128
    order_size: int = 10
    order_dim: int = 64
    basis: Basis = "gaussian"
    distance_size: int = 600
    distance_dim: int = 512
    ffn_width: int = 2
    readout_width: int = 2
    output_width: int = 2
    energy_reduce: Literal["sum", "mean"] = "sum"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self):
        if self.heads < 1 or self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        for name in (
            "dim",
            "depth",
            "elements",
            "order_size",
            "distance_dim",
            "order_dim",
            "atom_dim",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.distance_size < 2:
            raise ValueError(f"distance_size must be at least 2, got {self.distance_size}")
        if not self.cutoff > 0:
            raise ValueError(f"cutoff must be positive, got {self.cutoff}")
        if self.basis not in ("gaussian", "sigmoid", "linear_sigmoid"):
            raise ValueError(
                f"basis must be gaussian, sigmoid or linear_sigmoid, got {self.basis!r} "
                f"(silu is an untrained random layer in the official code)"
            )
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    def build(self) -> "Network":
        """The network, untrained."""
        raise NotImplementedError

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        return self.dim // self.heads
