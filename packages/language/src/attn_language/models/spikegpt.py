"""SpikeGPT: RWKV blocks whose outputs are binary spikes."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_attn import AuxiliaryLoss, Tap, lif, wkv

from .decoder import Decoder, DecoderConfig, PreNormBlock


@dataclass(frozen=True, kw_only=True)
class SpikeGPTConfig(DecoderConfig):
    """Shape of a SpikeGPT; the defaults are small, the published one is `spikegpt_216m`.

    Attributes:
        first_feed_forward: whether block 0 has a second feed-forward in place of its time mixing
            (the official "RWKV-ffnPre").
        logit_l2: pull of the largest logit towards 0; it changes gradients only.
        tau: time constant of the neurons, in tokens.
        threshold: of the neurons.

    Source: Zhu et al., 2023, "SpikeGPT", arXiv 2302.13939; Peng et al., 2023, "RWKV",
        arXiv 2305.13048.
    """

    dropout: float = 0.03
    first_feed_forward: bool = False
    logit_l2: float = 1e-4
    tau: float = 2.0
    threshold: float = 1.0

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        super().__post_init__()
        if not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, got {self.threshold}")

    def make_embedding(self) -> nn.Module:
        """Binary features, normed."""
        return SpikeEmbedding(self.vocab, self.dim)

    def make_block(self, index: int) -> nn.Module:
        """Time mixing and channel mixing, each followed by neurons."""
        is_second = index == 0 and self.first_feed_forward
        mixer = ChannelMix(self.dim) if is_second else TimeMix(self.dim)
        return SpikeBlock(
            nn.LayerNorm(self.dim), Spiking(mixer, self.tau, self.threshold),
            nn.LayerNorm(self.dim), Spiking(ChannelMix(self.dim), self.tau, self.threshold),
            self.dropout,
        )  # fmt: skip

    def make_head(self) -> nn.Linear:
        """The output matrix, of its own."""
        return PulledHead(self.dim, self.vocab, self.logit_l2)

    @torch.no_grad()
    def initialize(self, model: Decoder) -> None:
        """The official "fancy" initialization.

        Decays and mixing vectors depend on depth and channel, matrices are orthogonal or zero.
        """
        channels = torch.arange(self.dim)
        for index, block in enumerate(model.blocks):
            depth = index / max(self.depth - 1, 1)
            rest = 1 - index / self.depth
            ramp = (channels / self.dim) ** rest
            for module in block.modules():
                if isinstance(module, TimeMix):
                    spread = channels / max(self.dim - 1, 1)
                    module.decay.copy_(-5 + 8 * spread ** (0.7 + 1.3 * depth))
                    module.bonus.copy_(math.log(0.3) + 0.5 * ((channels + 1) % 3 - 1))
                    module.mix_k.copy_(ramp)
                    module.mix_v.copy_(ramp + 0.3 * depth)
                    module.mix_r.copy_((channels / self.dim) ** (0.5 * rest))
                    _orthogonal(module.value)
                    for linear in (module.key, module.receptance, module.output):
                        nn.init.zeros_(linear.weight)
                if isinstance(module, ChannelMix):
                    module.mix_k.copy_(ramp)
                    module.mix_r.copy_(ramp)
                    _orthogonal(module.key)
                    for linear in (module.value, module.receptance):
                        nn.init.zeros_(linear.weight)
        embedded = model.embed.get_parameter("tokens.weight")
        nn.init.orthogonal_(embedded, 1e-4 * max(self.vocab, self.dim) ** 0.5)
        nn.init.orthogonal_(
            model.get_parameter("head.weight"), 0.5 * max(self.vocab / self.dim, 1.0) ** 0.5
        )


def _orthogonal(linear: nn.Linear) -> None:
    rows, columns = linear.weight.shape
    nn.init.orthogonal_(linear.weight, max(rows / columns, 1.0) ** 0.5)


class _Spike(torch.autograd.Function):
    """1 where z >= 0; backward, the slope of an arc tangent of width alpha."""

    @staticmethod
    def forward(z: Tensor, alpha: float) -> Tensor:  # pyright: ignore
        return (z >= 0).to(z.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        z, ctx.alpha = inputs
        ctx.save_for_backward(z)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (z,) = ctx.saved_tensors
        return grad * (ctx.alpha / 2) / (1 + (math.pi / 2 * ctx.alpha * z).square()), None


def spike(z: Tensor, alpha: float = 2.0) -> Tensor:
    """1 where z >= 0, else 0, with the surrogate gradient (alpha/2) / (1 + (pi/2 alpha z)^2).

    Source: Fang et al., 2021, "Incorporating Learnable Membrane Time Constant", arXiv 2007.05785,
        eq. (12).

    Example:
        >>> import torch
        >>> spike(torch.tensor([-0.1, 0.0, 0.1]))
        tensor([0., 1., 1.])
    """
    return _Spike.apply(z, alpha)


class SpikeEmbedding(nn.Module):
    """Learned features made binary, then normed.

    Example:
        >>> import torch
        >>> embed = SpikeEmbedding(10, 4)
        >>> embed(torch.tensor([[1, 2, 3]]), 0).shape
        torch.Size([1, 3, 4])
    """

    def __init__(self, vocab: int, dim: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.norm = nn.LayerNorm(dim)
        self.spikes = Tap()

    def forward(self, ids: Tensor, position: int) -> Tensor:
        """The features of each token; its position does not matter."""
        return self.norm(self.spikes(spike(self.tokens(ids))))


class SpikingState(NamedTuple):
    """What a spiking branch keeps: its own state, and the membranes (batch, dim)."""

    branch: object
    membrane: Tensor


class Spiking(nn.Module):
    """A branch whose output drives leaky integrate-and-fire neurons; it returns their spikes.

    Args:
        branch: what drives the neurons.
        tau: their time constant, in tokens.
        threshold: the membrane at which they fire.
    """

    def __init__(self, branch: nn.Module, tau: float, threshold: float):
        super().__init__()
        self.branch, self.tau, self.threshold = branch, tau, threshold
        self.spikes = Tap()

    def forward(self, x: Tensor, state: SpikingState | None = None, valid: Tensor | None = None):
        """The spikes (batch, tokens, dim), and the state."""
        inner, membrane = state or (None, None)
        y, inner = self.branch(x, inner, valid)
        spikes, membrane = lif(y, tau=self.tau, threshold=self.threshold, state=membrane)
        return self.spikes(spikes), SpikingState(inner, membrane)


class SpikeBlock(PreNormBlock):
    """A pre-normed block with dropout on what leaves it, not on its branches."""

    def forward(self, x: Tensor, state=None, valid: Tensor | None = None):
        """The tokens after the block, and its state."""
        mixing, feeding = state or (None, None)
        y, mixing = self.mixer(self.norm1(x), mixing, valid)
        x = x + y
        y, feeding = self.feed_forward(self.norm2(x), feeding, valid)
        return self.drop(x + y), (mixing, feeding)


def shifted(x: Tensor, last: Tensor | None) -> Tensor:
    """Each token's predecessor; `last` (batch, dim), or zeros, before the first."""
    first = x.new_zeros(x.shape[0], 1, x.shape[2]) if last is None else last[:, None]
    return torch.cat((first, x[:, :-1]), 1)


class TimeMixState(NamedTuple):
    """The last token (batch, dim), and the state of `core_attn.wkv`."""

    last: Tensor
    sums: Tensor


class TimeMix(nn.Module):
    """RWKV-4's attention: output(sigmoid(r) * wkv(k, v)), of tokens mixed with their predecessors.

    Source: Peng et al., 2023, "RWKV", arXiv 2305.13048, eqs. (11)-(17).

    Example:
        >>> import torch
        >>> TimeMix(8)(torch.randn(2, 5, 8))[0].shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int):
        super().__init__()
        self.decay, self.bonus = (nn.Parameter(torch.zeros(dim)) for _ in range(2))
        self.mix_k, self.mix_v, self.mix_r = (nn.Parameter(torch.ones(dim)) for _ in range(3))
        self.key, self.value, self.receptance, self.output = (
            nn.Linear(dim, dim, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, state: TimeMixState | None = None, valid: Tensor | None = None):
        """The mixed tokens, and the state."""
        last, sums = state or (None, None)
        before = shifted(x, last)
        k = self.key(torch.lerp(before, x, self.mix_k))
        v = self.value(torch.lerp(before, x, self.mix_v))
        r = self.receptance(torch.lerp(before, x, self.mix_r)).sigmoid()
        mixed, sums = wkv(k, v, log_decay=-self.decay.exp(), bonus=self.bonus, state=sums)
        return self.output((r * mixed).to(x.dtype)), TimeMixState(x[:, -1], sums)


class ChannelMix(nn.Module):
    """RWKV-4's feed-forward: sigmoid(r) * value(relu(k)^2), of tokens mixed with predecessors.

    Source: Peng et al., 2023, "RWKV", arXiv 2305.13048, eqs. (18)-(20).

    Example:
        >>> import torch
        >>> ChannelMix(8)(torch.randn(2, 5, 8))[0].shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int):
        super().__init__()
        self.mix_k, self.mix_r = (nn.Parameter(torch.ones(dim)) for _ in range(2))
        self.key = nn.Linear(dim, 4 * dim, bias=False)
        self.value = nn.Linear(4 * dim, dim, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: Tensor | None = None, valid: Tensor | None = None):
        """The new features, and the last token (batch, dim)."""
        before = shifted(x, state)
        k = self.key(torch.lerp(before, x, self.mix_k)).relu().square()
        r = self.receptance(torch.lerp(before, x, self.mix_r)).sigmoid()
        return r * self.value(k), x[:, -1]


class PulledHead(nn.Linear):
    """A head that in training pulls each token's largest logit towards 0.

    The pull is an auxiliary loss of value 0 with the gradient of pull/2 * mean(max logit^2).
    """

    def __init__(self, dim: int, vocab: int, pull: float):
        super().__init__(dim, vocab, bias=False)
        self.pull = AuxiliaryLoss(pull)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Tensor:
        """The logits."""
        logits = super().forward(x)
        if self.training and self.pull.weight and torch.is_grad_enabled():
            loss = logits.float().amax(-1).square().mean() / 2
            self.pull(loss - loss.detach())
        return logits
