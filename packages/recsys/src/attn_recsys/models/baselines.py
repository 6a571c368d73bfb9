"""The models AutoInt is compared with, on the same table and batches."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..layout import Layout
from .deep import DeepPart
from .embedding import FieldEmbedding

Network = Literal["lr", "fm", "deepfm", "dcnv2", "finalmlp", "mlp"]


@dataclass(frozen=True)
class BaselineConfig:
    """One of the baselines and its sizes; each uses those that concern it.

    Attributes:
        network: which.
        dim: features of a field's embedding.
        deep_widths: hidden widths of the deep part.
        deep_dropout: probability of dropping a hidden unit, in training.
        cross_layers: cross layers of DCNv2.
        cross_rank: rank of their matrices; 0 for full ones.
        contexts: the two sets of fields that gate FinalMLP's streams; empty for a learned vector.
        gate_widths: hidden widths of the gates; None for one as wide as the gate's context.
        chunks: heads of FinalMLP's bilinear fusion.
    """

    network: Network = "fm"
    dim: int = 16
    deep_widths: tuple[int, ...] = (400, 400)
    deep_dropout: float = 0.0
    cross_layers: int = 3
    cross_rank: int = 0
    contexts: tuple[tuple[str, ...], tuple[str, ...]] = field(default=((), ()))
    gate_widths: tuple[int, ...] | None = None
    chunks: int = 1

    def __post_init__(self):
        if self.network not in get_args(Network):
            known = ", ".join(get_args(Network))
            raise ValueError(f"network must be one of {known}, got {self.network!r}")
        object.__setattr__(self, "deep_widths", tuple(self.deep_widths))
        object.__setattr__(self, "contexts", tuple(tuple(names) for names in self.contexts))
        if self.gate_widths is not None:
            object.__setattr__(self, "gate_widths", tuple(self.gate_widths))

    def build(self, layout: Layout, *, sparse: bool = False) -> "ClickModel":
        """The model of some fields, untrained."""
        return NETWORKS[self.network](layout, self, sparse=sparse)


class ClickModel(nn.Module):
    """Base of the baselines: their table(s), their size, their call.

    Args:
        layout: the fields.
        config: sizes.
        sparse: whether the tables' gradients are sparse.
    """

    embeds = True
    first_order = True

    def __init__(
        self,
        layout: Layout,
        config: BaselineConfig = BaselineConfig(),
        *,
        sparse: bool = False,
    ):
        super().__init__()
        self.layout, self.config = layout, config
        self.bias: nn.Parameter
        if self.first_order:
            self.linear = FieldEmbedding(layout, 1, sparse=sparse)
            self.bias = nn.Parameter(torch.zeros(()))
        if self.embeds:
            self.embedding = FieldEmbedding(layout, config.dim, sparse=sparse, attend=True)

    @property
    def embeddings(self) -> list[FieldEmbedding]:
        """The tables, which a sparse optimiser updates row by row."""
        return [m for m in self.modules() if isinstance(m, FieldEmbedding)]

    @property
    def output_bias(self) -> nn.Parameter:
        """The logit that a model without any weight would give."""
        return self.bias

    def first(self, index: Tensor, value: Tensor) -> Tensor:
        """The first-order term and the bias."""
        return self.bias + self.linear(index, value).sum((1, 2))


class LR(ClickModel):
    """Logistic regression: b + sum_m value_m w[index_m].

    Example:
        >>> LR(Layout.plain(3, rows=9))(torch.ones(2, 3).long(), torch.ones(2, 3)).shape
        torch.Size([2])
    """

    embeds = False

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, " batch"]:
        """Returns the logits."""
        return self.first(index, value)


class FM(ClickModel):
    """Factorisation machine: LR plus the inner products of all pairs of fields.

    Source: Rendle, 2010, "Factorization Machines", eq. (1) and lemma 3.1.

    Example:
        >>> FM(Layout.plain(3, rows=9))(torch.ones(2, 3).long(), torch.ones(2, 3)).shape
        torch.Size([2])
    """

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, " batch"]:
        """Returns the logits."""
        return self.first(index, value) + _pairs(self.embedding(index, value))


class DeepFM(ClickModel):
    """FM and a deep network on the same embeddings, summed.

    Source: Guo et al., 2017, "DeepFM", arXiv 1703.04247, eq. (1).

    Example:
        >>> DeepFM(Layout.plain(3, rows=9))(torch.ones(2, 3).long(), torch.ones(2, 3)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        layout: Layout,
        config: BaselineConfig = BaselineConfig(),
        *,
        sparse: bool = False,
    ):
        super().__init__(layout, config, sparse=sparse)
        self.deep = DeepPart(
            layout.fields * config.dim, config.deep_widths, dropout=config.deep_dropout
        )

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, " batch"]:
        """Returns the logits."""
        fields = self.embedding(index, value)
        deep = self.deep(fields.flatten(1)).squeeze(-1)
        return self.first(index, value) + _pairs(fields) + deep


class MLP(ClickModel):
    """The deep part alone.

    Example:
        >>> MLP(Layout.plain(3, rows=9))(torch.ones(2, 3).long(), torch.ones(2, 3)).shape
        torch.Size([2])
    """

    first_order = False

    def __init__(
        self,
        layout: Layout,
        config: BaselineConfig = BaselineConfig(),
        *,
        sparse: bool = False,
    ):
        super().__init__(layout, config, sparse=sparse)
        self.deep = DeepPart(
            layout.fields * config.dim, config.deep_widths, dropout=config.deep_dropout
        )

    @property
    def output_bias(self) -> nn.Parameter:
        """The logit that a model without any weight would give."""
        return self.deep.output_bias

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, " batch"]:
        """Returns the logits."""
        return self.deep(self.embedding(index, value).flatten(1)).squeeze(-1)


class DCNv2(ClickModel):
    """Cross layers x0 * (W x + b) + x beside a deep network, joined by one linear map.

    Source: Wang et al., 2021, "DCN V2", arXiv 2008.13535, eq. (1) and (2).

    Example:
        >>> DCNv2(Layout.plain(3, rows=9))(torch.ones(2, 3).long(), torch.ones(2, 3)).shape
        torch.Size([2])
    """

    first_order = False

    def __init__(
        self,
        layout: Layout,
        config: BaselineConfig = BaselineConfig(),
        *,
        sparse: bool = False,
    ):
        super().__init__(layout, config, sparse=sparse)
        width = layout.fields * config.dim
        self.cross = nn.ModuleList(
            nn.Linear(width, width)
            if not config.cross_rank
            else nn.Sequential(
                nn.Linear(width, config.cross_rank, bias=False), nn.Linear(config.cross_rank, width)
            )
            for _ in range(config.cross_layers)
        )
        self.deep = DeepPart(width, config.deep_widths, dropout=config.deep_dropout, logit=False)
        self.out = nn.Linear(width + (width, *config.deep_widths)[-1], 1)

    @property
    def output_bias(self) -> nn.Parameter:
        """The logit that a model without any weight would give."""
        return self.out.bias

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, " batch"]:
        """Returns the logits."""
        x0 = x = self.embedding(index, value).flatten(1)
        for layer in self.cross:
            x = x0 * layer(x) + x
        return self.out(torch.cat([x, self.deep(x0)], 1)).squeeze(-1)


class FinalMLP(ClickModel):
    """Two gated multilayer perceptrons, fused by a chunked bilinear form.

    Source: Mao et al., 2023, "FinalMLP", arXiv 2304.00902, eq. (4) to (8).

    Example:
        >>> FinalMLP(Layout.plain(3, rows=9))(torch.ones(2, 3).long(), torch.ones(2, 3)).shape
        torch.Size([2])
    """

    first_order = False

    def __init__(
        self,
        layout: Layout,
        config: BaselineConfig = BaselineConfig(),
        *,
        sparse: bool = False,
    ):
        super().__init__(layout, config, sparse=sparse)
        width, out = layout.fields * config.dim, config.deep_widths[-1]
        if out % config.chunks:
            raise ValueError(f"last deep width {out} is not divisible by chunks {config.chunks}")
        self.gates = nn.ModuleList(_Gate(layout, names, config, width) for names in config.contexts)
        self.streams = nn.ModuleList(
            DeepPart(width, config.deep_widths, dropout=config.deep_dropout, logit=False)
            for _ in range(2)
        )
        self.first_out, self.second_out = nn.Linear(out, 1), nn.Linear(out, 1)
        side = out // config.chunks
        self.fusion = nn.Parameter(torch.empty(config.chunks, side, side))
        nn.init.xavier_normal_(self.fusion)

    @property
    def output_bias(self) -> nn.Parameter:
        """The logit that a model without any weight would give."""
        return self.first_out.bias

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, " batch"]:
        """Returns the logits."""
        fields = self.embedding(index, value)
        one, two = (
            stream(gate(fields) * fields.flatten(1))
            for gate, stream in zip(self.gates, self.streams, strict=True)
        )
        chunks = one.unflatten(1, (self.config.chunks, -1))
        others = two.unflatten(1, (self.config.chunks, -1))
        fused = torch.einsum("bci,cij,bcj->b", chunks, self.fusion, others)
        return self.first_out(one).squeeze(-1) + self.second_out(two).squeeze(-1) + fused


NETWORKS: dict[Network, type[ClickModel]] = {
    "lr": LR, "fm": FM, "deepfm": DeepFM, "dcnv2": DCNv2, "finalmlp": FinalMLP, "mlp": MLP,
}  # fmt: skip
VARIANTS = {name: BaselineConfig(name) for name in get_args(Network)}


class _Gate(nn.Module):
    """Factors 2 sigmoid(MLP(context)) for every element of the flat embeddings."""

    def __init__(self, layout: Layout, names: tuple[str, ...], config: BaselineConfig, width: int):
        super().__init__()
        unknown = set(names) - set(layout.names)
        if unknown:
            raise ValueError(f"contexts name unknown fields {sorted(unknown)}; {layout.names}")
        self.picked = [layout.names.index(name) for name in names]
        context = config.dim * max(len(names), 1)
        self.constant = None if names else nn.Parameter(torch.zeros(1, context))
        hidden = (context,) if config.gate_widths is None else config.gate_widths
        self.map = nn.Sequential()
        for before, after in zip((context, *hidden), hidden, strict=False):
            self.map.extend([nn.Linear(before, after), nn.ReLU()])
        self.map.extend([nn.Linear((context, *hidden)[-1], width), nn.Sigmoid()])

    def forward(self, fields: Tensor) -> Tensor:
        context = self.constant
        if context is None:
            context = fields[:, self.picked].flatten(1)
        return 2 * self.map(context)


def _pairs(fields: Tensor) -> Tensor:
    """Sum over all pairs of fields of their inner product."""
    return 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(-1)
