"""The trained models: one layer of full-width softmax heads, alone, stacked, and for many seeds."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import AttentionLayer, attention_weights

Init = Literal["default", "small_id", "small_id_qk", "oppo_small_id"]


@dataclass(frozen=True)
class ICLConfig:
    """Shape of a model.

    Attributes:
        d: dimension of x.
        outputs: number of labels per token; tokens have width d + outputs.
        heads: each is as wide as the token.
        layers: 1 gives the layer of the paper, more a stack of causal layers.
        tied: whether the layers of a stack share their weights.
    """

    d: int = 5
    outputs: int = 1
    heads: int = 2
    layers: int = 1
    tied: bool = False

    def __post_init__(self):
        for name in ("d", "outputs", "heads", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def width(self) -> int:
        """Width of a token and of each head."""
        return self.d + self.outputs


class FullWidthHeads(AttentionLayer):
    """Attention with heads as wide as the tokens, no biases; `pattern` and `heads` are taps."""

    def __init__(self, width: int, heads: int, outputs: int):
        super().__init__()
        self.num_heads = heads
        self.q_proj = nn.Linear(width, heads * width, bias=False)
        self.k_proj = nn.Linear(width, heads * width, bias=False)
        self.v_proj = nn.Linear(width, heads * width, bias=False)
        self.o_proj = nn.Linear(heads * width, outputs, bias=False)

    def forward(
        self,
        queries: Float[Tensor, "batch queries width"],
        context: Float[Tensor, "batch keys width"],
        *,
        causal: bool = False,
        twice: bool = False,
    ) -> Float[Tensor, "batch queries outputs"]:
        """Attends from the queries to the context.

        Args:
            queries: tokens that look.
            context: tokens that are seen.
            causal: whether a query sees itself and earlier tokens only.
            twice: the softmax of the masked softmax, as in the authors' stack.
        """
        split = "batch tokens (head dim) -> batch head tokens dim"
        q = rearrange(self.q_proj(queries), split, head=self.num_heads)
        k = rearrange(self.k_proj(context), split, head=self.num_heads)
        v = rearrange(self.v_proj(context), split, head=self.num_heads)
        if twice:  # the weights of the first softmax are the scores of the second
            heads = self.attend(q, k, v, scale=0.0, bias=attention_weights(q, k), causal=causal)
        else:
            heads = self.attend(q, k, v, causal=causal)
        return self.o_proj(rearrange(heads, "batch tokens head dim -> batch tokens (head dim)"))


class SingleLayer(nn.Module):
    """y = sum_h O_h V_h sum_l p_hl z_l: the query attends to the context, never to itself.

    Source: He et al., 2025, "In-Context Linear Regression Demystified", arXiv 2503.12734, sec. 2.

    Example:
        >>> from attn_theory.icl_linear import LinearRegression
        >>> prompts = LinearRegression(d=3, length=7).sample(2)
        >>> SingleLayer(ICLConfig(d=3))(prompts.context, prompts.query).shape
        torch.Size([2, 1, 1])
    """

    def __init__(self, config: ICLConfig):
        super().__init__()
        if config.layers != 1:
            raise ValueError(f"SingleLayer has one layer, config asks for {config.layers}")
        self.config = config
        self.attention_layer = FullWidthHeads(config.width, config.heads, config.outputs)

    def forward(
        self, z: Float[Tensor, "batch length width"], z_q: Float[Tensor, "batch 1 width"]
    ) -> Float[Tensor, "batch 1 outputs"]:
        """Predicts the query's label."""
        _check_widths(z, z_q, self.config.width)
        return _check_finite(self.attention_layer(z_q, z), z, z_q)

    def key_query(self) -> Float[Tensor, "heads width width"]:
        """KQ_h = K_h^T Q_h / sqrt(width): rows index keys, columns queries."""
        q, k = self.attention_layer.q_proj.weight, self.attention_layer.k_proj.weight
        width = self.config.width
        q, k = q.view(-1, width, width), k.view(-1, width, width)
        return k.transpose(-1, -2) @ q / math.sqrt(width)

    def output_value(self) -> Float[Tensor, "heads outputs width"]:
        """OV_h = O_h V_h."""
        v, o = self.attention_layer.v_proj.weight, self.attention_layer.o_proj.weight
        width = self.config.width
        o = rearrange(o, "outputs (head width) -> head outputs width", width=width)
        return o @ v.view(-1, width, width)


class CausalStack(nn.Module):
    """Layers of causal full-width heads without residuals, read at the last position.

    Args:
        config: the shape.
        compat: "official-stack" applies the softmax twice, as the authors' file does; None once.
    """

    def __init__(self, config: ICLConfig, compat: Literal["official-stack"] | None = None):
        super().__init__()
        if compat not in (None, "official-stack"):
            raise ValueError(f"compat must be None or 'official-stack', got {compat!r}")
        self.config, self.compat = config, compat
        width, count = config.width, 1 if config.tied else config.layers
        layers = [FullWidthHeads(width, config.heads, width) for _ in range(count)]
        self.attention_layers = nn.ModuleList(layers)
        self.final_linear = nn.Linear(width, config.outputs, bias=False)

    def forward(
        self, z: Float[Tensor, "batch length width"], z_q: Float[Tensor, "batch 1 width"]
    ) -> Float[Tensor, "batch 1 outputs"]:
        """Predicts the query's label."""
        _check_widths(z, z_q, self.config.width)
        tokens = torch.cat((z, z_q), -2)
        for i in range(self.config.layers):
            layer = self.attention_layers[0 if self.config.tied else i]
            tokens = layer(tokens, tokens, causal=True, twice=self.compat == "official-stack")
        return _check_finite(self.final_linear(tokens[:, -1:]), z, z_q)


class SeededLayers(nn.Module):
    """The same layer for many seeds at once: weights with a leading seed axis, KQ and OV absorbed.

    Function and gradients equal `SingleLayer`'s; the context is never projected, so that a step
    costs two batched products with the raw tokens.

    Example:
        >>> layers = SeededLayers(ICLConfig(d=3), seeds=4)
        >>> layers(torch.randn(4, 2, 7, 4), torch.randn(4, 2, 1, 4)).shape
        torch.Size([4, 2, 1, 1])
    """

    def __init__(
        self,
        config: ICLConfig,
        seeds: int,
        *,
        init: Init = "default",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}")
        self.config = config
        width, heads = config.width, config.heads
        device = "cpu" if generator is None else generator.device

        def uniform(rows: int, columns: int) -> nn.Parameter:
            draw = torch.rand(seeds, rows, columns, generator=generator, device=device)
            return nn.Parameter((2 * draw - 1) / math.sqrt(columns))

        self.q, self.k, self.v = (uniform(heads * width, width) for _ in range(3))
        self.o = uniform(config.outputs, heads * width)
        self._initialize(init)

    @torch.no_grad()
    def _initialize(self, init: Init) -> None:
        heads, width = self.config.heads, self.config.width
        eye = torch.eye(width, device=self.q.device).repeat(heads, 1)
        if init == "default":
            return
        if init == "small_id_qk":
            self.q.copy_(1e-4 * eye)
            self.k.copy_(1e-4 * eye)
        elif init == "small_id":
            for weight in (self.q, self.k, self.v):
                weight.copy_(1e-6 * eye)
        elif init == "oppo_small_id":
            if heads % 2:
                raise ValueError(
                    f"init 'oppo_small_id' pairs heads; heads must be even, got {heads}"
                )
            sign = torch.ones(heads * width, 1, device=self.q.device)
            sign[heads * width // 2 :] = -1
            self.q.copy_(1e-6 * sign * eye)
            self.k.copy_(1e-6 * eye)
        else:
            raise ValueError(
                "init must be 'default', 'small_id', 'small_id_qk' or 'oppo_small_id', "
                f"got {init!r}"
            )

    def key_query(self) -> Float[Tensor, "seeds heads width width"]:
        """KQ of every seed and head."""
        q, k = (w.unflatten(1, (self.config.heads, -1)) for w in (self.q, self.k))
        return k.transpose(-1, -2) @ q / math.sqrt(self.config.width)

    def output_value(self) -> Float[Tensor, "seeds heads outputs width"]:
        """OV of every seed and head."""
        o = self.o.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
        return o @ self.v.unflatten(1, (self.config.heads, -1))

    def forward(
        self,
        z: Float[Tensor, "seeds batch length width"],
        z_q: Float[Tensor, "seeds batch 1 width"],
    ) -> Float[Tensor, "seeds batch 1 outputs"]:
        """Predicts with every seed's weights on that seed's prompts."""
        _check_widths(z, z_q, self.config.width)
        seeds, batch, _, width = z.shape
        asked = z_q.squeeze(2) @ self.key_query().flatten(1, 2).mT
        tokens = z.flatten(0, 1)
        pattern = torch.bmm(asked.view(seeds * batch, -1, width), tokens.mT).softmax(-1)
        read = torch.bmm(pattern, tokens).view(seeds, batch, -1)
        y = read @ self.output_value().transpose(1, 2).flatten(2).mT
        return _check_finite(y.unsqueeze(2), z, z_q)

    def layer(self, seed: int) -> SingleLayer:
        """One seed's weights as a layer of its own."""
        layer = SingleLayer(self.config).to(self.q)
        names = ("q", "k", "v", "o")
        state = {f"attention_layer.{n}_proj.weight": getattr(self, n)[seed].detach() for n in names}
        layer.load_state_dict(state)
        return layer


def _check_widths(z: Tensor, z_q: Tensor, width: int) -> None:
    if z.shape[-1] != width or z_q.shape[-1] != width:
        raise ValueError(
            f"tokens must have width {width}: z has {z.shape[-1]}, z_q has {z_q.shape[-1]}"
        )
    if z_q.shape[-2] != 1:
        raise ValueError(f"z_q must hold one query, got {z_q.shape[-2]}")


def _check_finite(y: Tensor, z: Tensor, z_q: Tensor) -> Tensor:
    """The predictions; one entry of a prompt that is not finite leaves no finite prediction."""
    if (
        not torch.compiler.is_compiling()
        and not y.detach().sum().isfinite()
        and not (z.isfinite().all() and z_q.isfinite().all())
    ):
        raise ValueError("z and z_q must be finite")
    return y
