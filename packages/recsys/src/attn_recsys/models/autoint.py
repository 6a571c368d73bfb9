"""AutoInt and AutoInt+: self-attention between the fields of a row."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from core_attn import dropout
from core_attn.layers import AttentionLayer
from core_attn.ops import Residual, short_attention_block

from ..layout import Layout
from .deep import DeepPart
from .embedding import FieldEmbedding


@dataclass(frozen=True)
class BlockConfig:
    """One interacting block's switches; the defaults are those of the official code.

    Attributes:
        heads: attention heads; they divide every block's width.
        qkv_activation: "relu" on queries, keys and values, or "none".
        qkv_bias: whether queries, keys, values and the residual map have biases.
        scale: whether scores are divided by the root of the head width.
        residual: "linear_relu" or "linear" maps the input to the block's width in every block,
            "identity" does so only where the widths differ, "none" leaves the residual out.
        norm: layer norm after the block's ReLU ("post"), before it ("pre_relu"), or "none".
        norm_eps: its epsilon, inside the root.
        attention_dropout: probability of dropping an attention weight, in training.
    """

    heads: int = 2
    qkv_activation: Literal["relu", "none"] = "relu"
    qkv_bias: bool = True
    scale: bool = True
    residual: Literal["linear_relu", "linear", "identity", "none"] = "linear_relu"
    norm: Literal["post", "pre_relu", "none"] = "post"
    norm_eps: float = 1e-8
    attention_dropout: float = 0.0


@dataclass(frozen=True)
class AutoIntConfig(BlockConfig):
    """The whole model's switches.

    Attributes:
        dim: features of a field's embedding.
        block_widths: features of a field after each block; their number is the depth.
        embedding_dropout: probability of dropping an element of the embeddings, in training.
        deep_widths: hidden widths of the deep part; any make the model AutoInt+.
        deep_dropout: probability of dropping a hidden unit of the deep part, in training.
        deep_norm: whether batch norm sits between its maps and their ReLU.
        deep_norm_eps: its epsilon; 1e-3 in the official code.
        deep_join: the deep part gives a logit of its own ("logit"), or its last hidden layer
            goes into the same linear map as the attention part ("concat").
        linear_term: whether a first-order term w[index] * value is added to the logit.
        linear_pooling: what of a multi-valued field it adds: the "mean" of its values' weights, or
            their "sum", as FuxiCTR.
        numerical: numerical fields are embedded like the others ("embedded"), or their raw
            values go into the deep part (and the linear term) only, as in DeepCTR ("deep_only").
        init: "official" draws the output biases from N(0, 1) and the deep biases like their
            kernels; "zero" starts all biases at 0.
    """

    dim: int = 16
    block_widths: tuple[int, ...] = (64, 64, 64)
    embedding_dropout: float = 0.0
    deep_widths: tuple[int, ...] = ()
    deep_dropout: float = 0.0
    deep_norm: bool = False
    deep_norm_eps: float = 1e-5
    deep_join: Literal["logit", "concat"] = "logit"
    linear_term: bool = False
    linear_pooling: Literal["mean", "sum"] = "mean"
    numerical: Literal["embedded", "deep_only"] = "embedded"
    init: Literal["official", "zero"] = "zero"

    def __post_init__(self):
        for name in ("block_widths", "deep_widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for width in self.block_widths:
            if width < 1 or self.heads < 1 or width % self.heads:
                raise ValueError(f"block width {width} is not divisible by heads {self.heads}")
        for name in ("embedding_dropout", "attention_dropout", "deep_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.numerical == "deep_only" and not self.deep_widths and not self.linear_term:
            raise ValueError(
                "numerical='deep_only' needs a deep part or a linear term; deep_widths is empty "
                "and linear_term is off"
            )

    def build(self, layout: Layout, *, sparse: bool = False) -> "AutoInt":
        """The model of some fields, untrained."""
        return AutoInt(layout, self, sparse=sparse)


PAPER = AutoIntConfig(
    qkv_activation="none", qkv_bias=False, scale=False, residual="linear", norm="none"
)
VARIANTS: dict[str, AutoIntConfig] = {
    "autoint": AutoIntConfig(),
    "autoint_plus": AutoIntConfig(deep_widths=(400, 400)),
    "autoint_paper": PAPER,
    "autoint_fuxictr": AutoIntConfig(
        qkv_activation="none", qkv_bias=False, scale=False, residual="identity", norm="none",
        norm_eps=1e-5, linear_pooling="sum",
    ),
    "autoint_deepctr_torch": AutoIntConfig(
        qkv_activation="none", qkv_bias=False, scale=False, residual="linear", norm="none",
        block_widths=(16, 16, 16), deep_widths=(256, 128), deep_join="concat", linear_term=True,
        numerical="deep_only",
    ),
}  # fmt: skip


class AutoInt(nn.Module, PyTorchModelHubMixin):
    """Click model whose feature interactions are attention between fields.

    With a deep part (`deep_widths`) it is AutoInt+. `save_pretrained` and `from_pretrained` keep it
    as weights and fields in a folder or a repository of the Hugging Face Hub.

    Args:
        layout: the fields.
        config: the switches.
        sparse: whether the tables' gradients are sparse.

    Source: Song et al., 2019, "AutoInt: Automatic Feature Interaction Learning via Self-Attentive
    Neural Networks", arXiv 1810.11921, sections 4.2 to 4.5.

    Example:
        >>> model = AutoInt(Layout.plain(4, rows=10), AutoIntConfig(block_widths=(8, 8)))
        >>> model(torch.randint(10, (5, 4)), torch.ones(5, 4)).shape
        torch.Size([5])
    """

    def __init__(self, layout: Layout, config: AutoIntConfig, *, sparse: bool = False):
        super().__init__()
        self._hub_mixin_config = {"layout": asdict(layout), "config": asdict(config)}  # config.json
        self.layout, self.config = layout, config
        raw = layout.numerical if config.numerical == "deep_only" else ()
        self.attended = [i for i, name in enumerate(layout.names) if name not in raw]
        self.raw_slots = [i for i, name in enumerate(layout.slot_names()) if name in raw]
        fields = len(self.attended)
        self.embedding = FieldEmbedding(layout, config.dim, sparse=sparse, attend=True)
        self.blocks = interacting_stack(config.dim, config.block_widths, config)
        width = config.block_widths[-1] if config.block_widths else config.dim
        self.deep = (
            DeepPart(
                fields * config.dim + len(self.raw_slots),
                config.deep_widths,
                dropout=config.deep_dropout,
                norm=config.deep_norm,
                norm_eps=config.deep_norm_eps,
                logit=config.deep_join == "logit",
            )
            if config.deep_widths
            else None
        )
        joined = config.deep_widths[-1] if self.deep and config.deep_join == "concat" else 0
        self.out = nn.Linear(fields * width + joined, 1)
        self.linear = (
            FieldEmbedding(layout, 1, sparse=sparse, pooling=config.linear_pooling)
            if config.linear_term
            else None
        )
        self.reset_output(config.init)

    def reset_output(self, init: Literal["official", "zero"]) -> None:
        """Draws the output layers and the deep part as the official code does, or with zero biases.

        Source: official TensorFlow code, N(0, 2 / (fan_in + fan_out)) for kernels.
        """
        nn.init.normal_(self.out.weight, std=math.sqrt(2 / (self.out.in_features + 1)))
        nn.init.normal_(self.out.bias) if init == "official" else nn.init.zeros_(self.out.bias)
        if self.deep is not None:
            self.deep.reset(init)

    @property
    def output_bias(self) -> nn.Parameter:
        """The logit that a model without any weight would give."""
        return self.out.bias

    @property
    def embeddings(self) -> list[FieldEmbedding]:
        """The tables, which a sparse optimiser updates row by row."""
        return [self.embedding] if self.linear is None else [self.embedding, self.linear]

    def forward(
        self, index: Int[Tensor, "batch slots"], value: Float[Tensor, "batch slots"]
    ) -> Float[Tensor, " batch"]:
        """Returns the logits of a click.

        Args:
            index: table rows, in the order of the layout's slots.
            value: 1 for a category, the number of a numerical field, 0 where missing.
        """
        fields = self.embedding(index, value)
        if len(self.attended) < self.layout.fields:
            fields = fields[:, self.attended]
        fields = dropout(fields, self.config.embedding_dropout, self.training)
        found = self.blocks(fields).flatten(1)
        logit = 0.0
        if self.deep is not None:
            seen = fields.flatten(1)
            if self.raw_slots:
                seen = torch.cat([seen, value[:, self.raw_slots]], 1)
            deep = self.deep(seen)
            if self.config.deep_join == "concat":
                found = torch.cat([found, deep], 1)
            else:
                logit = deep.squeeze(-1)
        logit = logit + self.out(found).squeeze(-1)
        if self.linear is not None:
            logit = logit + self.linear(index, value).sum((1, 2))
        return logit


def interacting_stack(
    in_width: int, widths: tuple[int, ...], config: BlockConfig
) -> "nn.Sequential":
    """Blocks one after another; none gives the identity.

    Example:
        >>> interacting_stack(4, (8, 6), BlockConfig())(torch.randn(2, 3, 4)).shape
        torch.Size([2, 3, 6])
    """
    return nn.Sequential(
        *(
            InteractingBlock(before, width, config)
            for before, width in zip((in_width, *widths), widths, strict=False)
        )
    )


class InteractingBlock(AttentionLayer):
    """Every field attends to all fields: ReLU(concat_h softmax(Q K^T) V + R), with layer norm.

    Queries, keys, values and residual are one product with stacked weights, and on a CPU the block
    is one kernel, forward and backward.

    Args:
        in_width: features of a field before the block.
        width: features after it, over all heads.
        config: the switches.

    Source: Song et al., 2019, arXiv 1810.11921, eq. (5) to (8), and the official code's
    activations, scale and norm.

    Example:
        >>> block = InteractingBlock(6, 8, BlockConfig(heads=4))
        >>> block(torch.randn(2, 5, 6)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, in_width: int, width: int, config: BlockConfig):
        super().__init__()
        if config.heads < 1 or width % config.heads:
            raise ValueError(f"block width {width} is not divisible by heads {config.heads}")
        self.config = config
        self.residual: Residual = config.residual
        if config.residual == "identity" and in_width != width:
            self.residual = "linear"
        parts = 4 if self.residual.startswith("linear") else 3
        self.project = nn.Linear(in_width, parts * width, bias=config.qkv_bias)
        for part in self.project.weight.split(width):
            nn.init.xavier_uniform_(part)
        if self.project.bias is not None:
            nn.init.zeros_(self.project.bias)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps) if config.norm != "none" else None

    def forward(
        self, x: Float[Tensor, "batch fields in_width"]
    ) -> Float[Tensor, "batch fields width"]:
        """Returns the fields after one round of interaction."""
        config = self.config
        watched = self.pattern.listening or self.heads.listening
        return short_attention_block(
            x,
            self.project.weight,
            self.project.bias,
            self.norm.weight if self.norm is not None else None,
            self.norm.bias if self.norm is not None else None,
            heads=config.heads,
            activation=config.qkv_activation,
            residual=self.residual,
            norm_first=config.norm == "pre_relu",
            eps=config.norm_eps,
            scale=None if config.scale else 1.0,
            dropout=config.attention_dropout if self.training else 0.0,
            attend=self._watched_heads if watched else None,
        )

    def _watched_heads(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = None if self.config.scale else 1.0
        return self.attend(q, k, v, scale=scale, dropout=self.config.attention_dropout)
