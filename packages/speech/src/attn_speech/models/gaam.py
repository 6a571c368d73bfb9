"""Classification of utterances from the layers of an encoder, weighted by Gaussian attention."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core_attn import GaussianGate, MultiHeadAttention, SummedGroupAttention

from .bounds import require_at_least, require_one_of

Mechanism = Literal["gaam", "gq_gaam", "mha", "weighted_sum", "none"]


@dataclass(frozen=True)
class GaamConfig:
    """Sizes and options; the defaults are the paper's for WavLM-Large.

    Attributes:
        layers: of the encoder, or segments of the utterance.
        dim: features of each.
        classes: to choose from.
        mechanism: how layers are weighted: "gaam", "gq_gaam" (then grouped attention among
            them), "mha" (attention among an utterance's layers, with as many parameters as the
            gate), "weighted_sum" (one weight per layer, summing to one), or "none".
        heads: of the gate.
        embed: width for "gq_gaam".
        query_heads: of its attention.
        kv_heads: of its attention.
        grid: height and width as which the features are seen by the convolutions.
        conv_hidden: channels between the two convolutions.
        positive_spread: whether the gate's spread is kept positive.

    Source: Ioannides et al., 2024, arXiv 2401.11143, section 4.
    """

    layers: int = 24
    dim: int = 1024
    classes: int = 4
    mechanism: Mechanism = "gaam"
    heads: int = 8
    embed: int = 512
    query_heads: int = 8
    kv_heads: int = 2
    grid: tuple[int, int] = (32, 32)
    conv_hidden: int = 512
    positive_spread: bool = False

    def __post_init__(self):
        width = self.embed if self.mechanism == "gq_gaam" else self.dim
        require_at_least(1, self, "layers dim heads embed conv_hidden")
        require_one_of(get_args(Mechanism), self, "mechanism")
        if min(self.grid) < 1 or self.grid[0] * self.grid[1] != width:
            raise ValueError(f"grid {tuple(self.grid)} does not hold {width} features")
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, got {self.classes}")

    def build(self) -> "GaamClassifier":
        """The network, freshly initialized."""
        return GaamClassifier(self)


class GaamClassifier(nn.Module):
    """Layers of features, averaged over time, to class scores.

    Args:
        config: sizes and options.

    Source: Ioannides et al., 2024, arXiv 2401.11143, figure 2.

    Example:
        >>> config = GaamConfig(layers=4, dim=6, heads=2, grid=(2, 3), conv_hidden=3)
        >>> config.build()(torch.randn(2, 4, 5, 6)).shape
        torch.Size([2, 4])
    """

    def __init__(self, config: GaamConfig):
        super().__init__()
        self.config = config
        layers, dim = config.layers, config.dim
        gated = config.mechanism in ("gaam", "gq_gaam")
        self.gate = None
        if gated:
            self.gate = GaussianGate(
                dim, layers, config.heads, positive_spread=config.positive_spread
            )
        self.embed = self.attn = self.layer_logits = None
        if config.mechanism == "gq_gaam":
            self.embed = nn.Linear(dim, config.embed)
            self.attn = SummedGroupAttention(config.embed, config.query_heads, config.kv_heads)
        elif config.mechanism == "mha":
            # 4 dim w weights for w = heads / 2; the gate has 2 heads dim
            self.attn = MultiHeadAttention(dim, max(1, config.heads // 2), head_dim=1)
        elif config.mechanism == "weighted_sum":
            self.layer_logits = nn.Parameter(torch.zeros(layers))
        width = config.grid[0] * config.grid[1]
        self.conv1 = nn.Conv2d(layers, config.conv_hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(config.conv_hidden, layers, 3, padding=1)
        self.head = nn.Linear(layers * width, config.classes)
        for layer in (self.conv1, self.conv2, self.head):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self,
        x: Float[Tensor, "batch layers *time dim"],
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Scores of the classes.

        Args:
            x: features, with or without a time axis.
            lengths: frames of each utterance; without, padding is averaged in as officially.
        """
        x = self.weighted(_pooled(x, lengths))
        image = x.unflatten(-1, tuple(self.config.grid))
        return self.head(self.conv2(self.conv1(image).relu()).relu().flatten(1))

    def weighted(self, x: Float[Tensor, "batch layers dim"]) -> Float[Tensor, "batch layers width"]:
        """The layers as the mechanism weights them."""
        if self.gate is not None:
            x = self.gate(x)
        if self.embed is not None and self.attn is not None:
            return self.attn(self.embed(x))
        if self.attn is not None:
            return x + self.attn(x)
        if self.layer_logits is not None:
            return x * (len(self.layer_logits) * self.layer_logits.softmax(0))[:, None]
        return x


def focal_loss(
    scores: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Cross entropy that says little of examples that are right already.

    Source: Lin et al., 2017, arXiv 1708.02002, eq. (5), with alpha 0.25 and gamma 2.5.
    """
    cost = nn.functional.cross_entropy(scores, labels, reduction="none")
    return (0.25 * (1 - (-cost).exp() + 1e-6) ** 2.5 * cost).mean()


def _pooled(x: Tensor, lengths: Tensor | None) -> Tensor:
    if x.dim() == 3:
        return x
    if lengths is None:
        return x.mean(2)
    keep = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
    return (x * keep[:, None, :, None]).sum(2) / lengths[:, None, None].to(x)
