"""Features of a whole structure, from which its energy may be read."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import BaseConfig
from .layers import Residual
from .parts import Activated, make_norm


class WholeReadout(nn.Module):
    """Of each stage's sum or mean x over a structure x + FFN(norm(x)), then as the projection."""

    def __init__(self, c: BaseConfig):
        super().__init__()
        self.mean = c.energy_reduce == "mean"
        self.readouts = nn.ModuleList(Residual(c, c.readout_width) for _ in range(c.depth + 1))
        self.linear = nn.Linear((c.depth + 1) * c.dim, c.dim)
        self.act = Activated(c.activation)
        self.norm = make_norm(c.norm, c.dim)

    def forward(
        self, stages: list[Tensor], system: Tensor, counts: Tensor
    ) -> Float[Tensor, "structures dim"]:
        """Features of the structures, of nodes (atoms, dim) at each stage."""
        read = []
        for nodes, readout in zip(stages, self.readouts, strict=True):
            total = nodes.new_zeros(len(counts), nodes.shape[1]).index_add(0, system, nodes)
            read.append(readout(total / counts[:, None] if self.mean else total))
        return self.norm(self.act(self.linear(torch.cat(read, 1))))
