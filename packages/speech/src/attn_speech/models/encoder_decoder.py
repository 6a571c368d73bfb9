"""The encoder and the decoder of Transformer TTS."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core_attn import Dropout

from .blocks import NORM_EPS, Block, StepCache
from .convolutions import ConvStack, DecoderPrenet
from .positions import Positions
from .tts_config import TransformerTTSConfig

PADDING = 0


class Encoder(nn.Module):
    """Symbols to their context: embedding, convolutions, positions and transformer blocks.

    Args:
        config: sizes and options.
    """

    def __init__(self, config: TransformerTTSConfig):
        super().__init__()
        self.mask_padding = config.mask_padding
        self.embed = nn.Embedding(config.vocabulary, config.embed_dim, padding_idx=PADDING)
        self.prenet = self.proj = None
        if config.encoder_prenet_layers:
            width = config.encoder_prenet_dim
            self.prenet = ConvStack(
                [config.embed_dim, *[width] * config.encoder_prenet_layers],
                config.encoder_prenet_kernel, nn.ReLU, last_activation=True,
                batch_norm=config.batch_norm, dropout=config.encoder_prenet_dropout,
            )  # fmt: skip
            self.proj = nn.Linear(width, config.dim)
        self.positions = Positions(
            config.dim, scaled=config.scaled_positions, alpha=config.encoder_alpha,
            dropout=config.encoder_position_dropout,
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            Block(
                config.dim, config.heads, config.encoder_hidden, feed_forward=config.feed_forward,
                kernel=config.feed_forward_kernel, pre_norm=config.encoder_pre_norm,
                concat=config.encoder_concat, dropout=config.encoder_dropout,
                attention_dropout=config.encoder_attention_dropout,
            )
            for _ in range(config.encoder_depth)
        )  # fmt: skip
        normed = config.encoder_pre_norm
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS) if normed else nn.Identity()

    def forward(
        self, text: Int[Tensor, "batch tokens"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Encodes symbols."""
        x = self.embed(text)
        keep = within(x, lengths) if self.mask_padding else None
        if self.prenet is not None and self.proj is not None:
            x = self.proj(self.prenet(x, keep))
        x = self.positions(x)
        for block in self.blocks:
            x = block(x, lengths=lengths, keep=keep)
        return self.norm(x)


class Decoder(nn.Module):
    """Frames so far to the features of the next ones: pre-net, positions, transformer blocks.

    Args:
        config: sizes and options.
    """

    def __init__(self, config: TransformerTTSConfig):
        super().__init__()
        self.prenet = self.norm_in = None
        width = config.mels
        if config.decoder_prenet_layers:
            width = config.decoder_prenet_dim
            self.prenet = DecoderPrenet(
                config.mels, config.decoder_prenet_layers, width, config.decoder_prenet_dropout
            )
        else:
            self.norm_in = nn.LayerNorm(config.dim)
            self.dropout_in = Dropout(config.decoder_dropout)
        self.proj = nn.Linear(width, config.dim)
        self.positions = Positions(
            config.dim, scaled=config.scaled_positions, alpha=config.decoder_alpha,
            dropout=config.decoder_position_dropout,
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            Block(
                config.dim, config.heads, config.decoder_hidden, cross=True,
                pre_norm=config.decoder_pre_norm, concat=config.decoder_concat,
                dropout=config.decoder_dropout,
                attention_dropout=config.decoder_attention_dropout,
                cross_dropout=config.cross_attention_dropout,
            )
            for _ in range(config.decoder_depth)
        )  # fmt: skip
        normed = config.decoder_pre_norm
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS) if normed else nn.Identity()

    def noise(self, seeds: Sequence[int]):
        """The pre-net's dropout outside training; None where it has none."""
        return None if self.prenet is None else self.prenet.noise(seeds)

    def forward(
        self,
        frames: Float[Tensor, "batch steps mels"],
        memory: Float[Tensor, "batch tokens dim"],
        *,
        lengths: Int[Tensor, " batch"] | None = None,
        memory_lengths: Int[Tensor, " batch"] | None = None,
        factors: Float[Tensor, "batch steps units"] | None = None,
        memory_masks: Sequence[Bool[Tensor, "batch heads steps tokens"] | None] | None = None,
        caches: Sequence[StepCache] | None = None,
    ) -> Float[Tensor, "batch steps dim"]:
        """Decodes frames; with caches, those that follow what the caches hold."""
        start = caches[0].own.length if caches else 0
        if self.prenet is not None:
            x = self.proj(self.prenet(frames, factors))
        else:
            x = self.dropout_in(self.norm_in(self.proj(frames))).relu()  # pyright: ignore
        x = self.positions(x, start)
        for i, block in enumerate(self.blocks):
            x = block(
                x, memory, lengths=lengths, memory_lengths=memory_lengths,
                memory_mask=memory_masks[i] if memory_masks else None,
                cache=caches[i] if caches else None,
            )  # fmt: skip
        return self.norm(x)


def within(x: Tensor, lengths: Tensor) -> Tensor:
    """Which columns (batch, time) are no padding."""
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]
