"""Transformer TTS: phonemes to a mel spectrogram by an autoregressive transformer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import MultiHeadAttention

from .blocks import NORM_EPS, Block, FeedForwardKind, StepCache
from .convolutions import ConvStack, DecoderPrenet
from .positions import Positions

PADDING = 0


@dataclass(frozen=True)
class TransformerTTSConfig:
    """Sizes and options; the defaults are the paper's; what it does not say is Tacotron 2's.

    Attributes:
        vocabulary: symbols, with 0 for padding and the last one for the end of the text.
        mels: bands of a frame.
        embed_dim: of a symbol.
        dim: of the encoder and the decoder.
        heads: of every attention.
        encoder_depth: blocks.
        decoder_depth: blocks.
        encoder_hidden: width of the encoder's feed-forward networks.
        decoder_hidden: width of the decoder's.
        encoder_prenet_layers: convolutions before the encoder; 0 for a plain embedding.
        encoder_prenet_dim: their channels.
        encoder_prenet_kernel: their width.
        decoder_prenet_layers: linear layers before the decoder; 0 for one without dropout.
        decoder_prenet_dim: their width.
        postnet_layers: convolutions after the decoder; 0 for none.
        postnet_dim: their channels.
        postnet_kernel: their width.
        feed_forward: kind of the encoder's feed-forward networks.
        feed_forward_kernel: of their convolutions.
        encoder_pre_norm: whether encoder branches, not their sums, are normalized.
        decoder_pre_norm: likewise in the decoder.
        encoder_concat: whether encoder queries are joined to what they read.
        decoder_concat: likewise in the decoder.
        scaled_positions: whether sinusoids have a learned factor.
        encoder_alpha: its start in the encoder.
        decoder_alpha: its start in the decoder.
        batch_norm: whether convolutions are normalized.
        reduction: frames that one step of the decoder emits.
        speakers: entries of the speaker table; 0 for none.
        languages: entries of the language table; 0 for none.
        speaker_dim: width of given speaker vectors; 0 for none.
        speaker_mode: whether these are added to the encoder's output or joined to it.
        mask_padding: whether convolutions see zeros in padded columns, so that a row does not
            depend on its batch. The official code lets them see what the layer before made there.
        encoder_dropout: of branches and hidden units of the encoder.
        encoder_position_dropout: after its positions.
        encoder_attention_dropout: of its attention weights.
        decoder_dropout: of branches and hidden units of the decoder.
        decoder_position_dropout: after its positions.
        decoder_attention_dropout: of its self attention's weights.
        cross_attention_dropout: of its weights over the text.
        encoder_prenet_dropout: of the convolutions before the encoder.
        decoder_prenet_dropout: of the layers before the decoder, outside training too.
        postnet_dropout: of the convolutions after the decoder.

    Source: Li et al., 2019, "Neural Speech Synthesis with Transformer Network", arXiv 1809.08895.
    """

    vocabulary: int = 64
    mels: int = 80
    embed_dim: int = 512
    dim: int = 512
    heads: int = 8
    encoder_depth: int = 6
    decoder_depth: int = 6
    encoder_hidden: int = 2048
    decoder_hidden: int = 2048
    encoder_prenet_layers: int = 3
    encoder_prenet_dim: int = 512
    encoder_prenet_kernel: int = 5
    decoder_prenet_layers: int = 2
    decoder_prenet_dim: int = 256
    postnet_layers: int = 5
    postnet_dim: int = 512
    postnet_kernel: int = 5
    feed_forward: FeedForwardKind = "linear"
    feed_forward_kernel: int = 1
    encoder_pre_norm: bool = True
    decoder_pre_norm: bool = True
    encoder_concat: bool = False
    decoder_concat: bool = False
    scaled_positions: bool = True
    encoder_alpha: float = 1.0
    decoder_alpha: float = 1.0
    batch_norm: bool = True
    reduction: int = 1
    speakers: int = 0
    languages: int = 0
    speaker_dim: int = 0
    speaker_mode: Literal["add", "concat"] = "add"
    mask_padding: bool = True
    encoder_dropout: float = 0.1
    encoder_position_dropout: float = 0.1
    encoder_attention_dropout: float = 0.1
    decoder_dropout: float = 0.1
    decoder_position_dropout: float = 0.1
    decoder_attention_dropout: float = 0.1
    cross_attention_dropout: float = 0.1
    encoder_prenet_dropout: float = 0.5
    decoder_prenet_dropout: float = 0.5
    postnet_dropout: float = 0.5

    def __post_init__(self):
        for name in ("mels", "embed_dim", "dim", "heads", "reduction"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary must hold padding and end, got {self.vocabulary}")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        if self.encoder_prenet_layers == 0 and self.embed_dim != self.dim:
            raise ValueError(
                f"without an encoder pre-net embed_dim {self.embed_dim} must be dim {self.dim}"
            )
        if self.speaker_mode not in ("add", "concat"):
            raise ValueError(f"speaker_mode must be 'add' or 'concat', got {self.speaker_mode!r}")

    def build(self) -> "TransformerTTS":
        """The network, freshly initialized."""
        return TransformerTTS(self)


class Speaker(NamedTuple):
    """Who speaks, where a model asks for it; a part that it does not ask for is None."""

    ids: Int[Tensor, " batch"] | None = None
    languages: Int[Tensor, " batch"] | None = None
    vectors: Float[Tensor, "batch speaker_dim"] | None = None


class Prediction(NamedTuple):
    """What the network says of a batch when it is shown the true mels.

    Attributes:
        after: mels with the post-net; a whole number of groups of `reduction` frames.
        before: mels without it.
        stop_logits: whether a frame is the last.
        hidden: the decoder's output, the input of the mel layer.
    """

    after: Float[Tensor, "batch frames mels"]
    before: Float[Tensor, "batch frames mels"]
    stop_logits: Float[Tensor, "batch frames"]
    hidden: Float[Tensor, "batch steps dim"]


class TransformerTTS(nn.Module):
    """Text tokens to mel frames, all at once against true mels, or step by step by `decode`.

    Args:
        config: sizes and options.

    Source: Li et al., 2019, arXiv 1809.08895, figure 3.

    Example:
        >>> config = TransformerTTSConfig(vocabulary=9, dim=16, heads=2, encoder_depth=1,
        ...     decoder_depth=1, mels=4)
        >>> text, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
        >>> model, mels = config.build().eval(), torch.randn(1, 6, 4)
        >>> model(text, lengths, mels, torch.tensor([6])).after.shape
        torch.Size([1, 6, 4])
    """

    def __init__(self, config: TransformerTTSConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.speaker = nn.Embedding(config.speakers, config.dim) if config.speakers else None
        self.language = nn.Embedding(config.languages, config.dim) if config.languages else None
        joined = config.speaker_dim + (config.dim if config.speaker_mode == "concat" else 0)
        self.speaker_proj = nn.Linear(joined, config.dim) if config.speaker_dim else None
        self.decoder = Decoder(config)
        self.mel = nn.Linear(config.dim, config.mels * config.reduction)
        self.stop = nn.Linear(config.dim, config.reduction)
        self.postnet = None
        if config.postnet_layers:
            between = [config.postnet_dim] * (config.postnet_layers - 1)
            self.postnet = ConvStack(
                [config.mels, *between, config.mels], config.postnet_kernel, nn.Tanh,
                last_activation=False, batch_norm=config.batch_norm,
                dropout=config.postnet_dropout,
            )  # fmt: skip
        _initialize(self)

    def forward(
        self,
        text: Int[Tensor, "batch tokens"],
        text_lengths: Int[Tensor, " batch"],
        mels: Float[Tensor, "batch frames mels"],
        mel_lengths: Int[Tensor, " batch"],
        speaker: Speaker | None = None,
        *,
        seed: int = 0,
        own: float = 0.0,
    ) -> Prediction:
        """Predicts each group of frames from those before it.

        Args:
            text: symbols without the end symbol, which is added here; padded with 0.
            text_lengths: symbols of each row.
            mels: frames, in the features of the recipe.
            mel_lengths: frames of each row.
            speaker: who speaks.
            seed: of the pre-net's dropout outside training.
            own: share of the frames shown that are the model's own predictions from true ones, so
                that it learns to go on from what it says (Mihaylova and Martins, 2019, arXiv
                1906.07651).

        Raises:
            ValueError: an input does not fit the model or another input.
        """
        self._check_mels(text, mels, mel_lengths)
        memory, memory_lengths = self.encode(text, text_lengths, speaker)
        r = self.config.reduction
        true, steps = mels[:, r - 1 :: r], mel_lengths // r
        factors = None
        if not self.training and (noise := self.decoder.noise([seed] * len(text))) is not None:
            factors = noise.draw(true.shape[1])

        def decoded(shown: Tensor) -> Tensor:
            shown = torch.cat([torch.zeros_like(shown[:, :1]), shown[:, :-1]], 1)
            return self.decoder(
                shown, memory, lengths=steps, memory_lengths=memory_lengths, factors=factors
            )

        shown = true
        if own > 0:
            with torch.no_grad():
                said = self.frames(decoded(true))[0][:, r - 1 :: r]
            is_own = torch.rand(shown.shape[:2], device=shown.device) < own
            shown = torch.where(is_own[..., None], said, true)
        hidden = decoded(shown)
        before, stop_logits = self.frames(hidden)
        after = self.refine(before, steps * r)
        return Prediction(after, before, stop_logits, hidden)

    def encode(
        self,
        text: Int[Tensor, "batch tokens"],
        text_lengths: Int[Tensor, " batch"],
        speaker: Speaker | None = None,
    ) -> tuple[Float[Tensor, "batch tokens_and_end dim"], Int[Tensor, " batch"]]:
        """The encoder's output with who speaks in it, and its lengths, one for the end more.

        Raises:
            ValueError: the text is empty, a symbol is not in the vocabulary, a length does not
                fit, or the speaker is not what the model asks for.
        """
        self._check_text(text, text_lengths)
        text = F.pad(text, (0, 1), value=PADDING)
        text = text.scatter(1, text_lengths[:, None], self.config.vocabulary - 1)
        lengths = text_lengths + 1
        if not torch.compiler.is_compiling():  # columns that are padding in every row
            text = text[:, : int(lengths.max())]
        memory = self.encoder(text, lengths)
        return self._speak_as(memory, speaker or Speaker()), lengths

    def frames(
        self, hidden: Float[Tensor, "batch steps dim"]
    ) -> tuple[Float[Tensor, "batch frames mels"], Float[Tensor, "batch frames"]]:
        """Mels without the post-net and stop logits of the decoder's output."""
        mels = self.mel(hidden).view(hidden.shape[0], -1, self.config.mels)
        return mels, self.stop(hidden).flatten(1)

    def refine(
        self,
        before: Float[Tensor, "batch frames mels"],
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch frames mels"]:
        """Mels with what the post-net adds."""
        if self.postnet is None:
            return before
        if lengths is None or not self.config.mask_padding:
            return before + self.postnet(before)
        return before + self.postnet(before, _keep(before, lengths))

    def _speak_as(self, memory: Tensor, speaker: Speaker) -> Tensor:
        tables = (
            ("speaker.ids", self.speaker, speaker.ids),
            ("speaker.languages", self.language, speaker.languages),
            ("speaker.vectors", self.speaker_proj, speaker.vectors),
        )
        for name, layer, given in tables:
            if (layer is None) != (given is None):
                wants = "takes no" if layer is None else "needs"
                raise ValueError(f"this model {wants} {name}")
        for name, table, ids in tables[:2]:
            if isinstance(table, nn.Embedding) and ids is not None:
                if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(table.weight):
                    raise ValueError(
                        f"{name} must be in 0 ... {len(table.weight) - 1}, got {ids.tolist()}"
                    )
                memory = memory + table(ids.reshape(-1))[:, None]
        if self.speaker_proj is not None and speaker.vectors is not None:
            who = F.normalize(speaker.vectors)[:, None]
            if self.config.speaker_mode == "add":
                return memory + self.speaker_proj(who)
            who = who.expand(-1, memory.shape[1], -1)
            return self.speaker_proj(torch.cat([memory, who], -1))
        return memory

    def _check_text(self, text: Tensor, lengths: Tensor) -> None:
        if text.dim() != 2 or tuple(lengths.shape) != text.shape[:1]:
            raise ValueError(
                f"text must be (batch, tokens) with a length for each row, got "
                f"{tuple(text.shape)} and {tuple(lengths.shape)}"
            )
        if torch.compiler.is_compiling():
            return
        if text.shape[1] == 0 or not 1 <= int(lengths.min()) <= int(lengths.max()) <= text.shape[1]:
            raise ValueError(
                f"text is empty or its lengths {lengths.tolist()} are not in 1 ... {text.shape[1]}"
            )
        low, high = int(text.min()), int(text.max())
        if low < 0 or high >= self.config.vocabulary:
            raise ValueError(
                f"text has symbols {low} ... {high}, the vocabulary {self.config.vocabulary}"
            )

    def _check_mels(self, text: Tensor, mels: Tensor, lengths: Tensor) -> None:
        r = self.config.reduction
        if mels.dim() != 3 or mels.shape[-1] != self.config.mels or len(mels) != len(text):
            raise ValueError(
                f"mels must be ({len(text)}, frames, {self.config.mels}), got {tuple(mels.shape)}"
            )
        if tuple(lengths.shape) != mels.shape[:1]:
            raise ValueError(f"mel_lengths must have {len(mels)} entries, got {len(lengths)}")
        if torch.compiler.is_compiling():
            return
        if int(lengths.max()) > mels.shape[1]:
            raise ValueError(f"mel_lengths {lengths.tolist()} exceed the {mels.shape[1]} frames")
        if int(lengths.min()) < r:
            row = int(lengths.argmin())
            raise ValueError(
                f"utterance {row} has {int(lengths[row])} frames, fewer than reduction {r}"
            )
        if not bool(mels.isfinite().all()):
            raise ValueError("mels has NaN or infinite values")


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
        keep = _keep(x, lengths) if self.mask_padding else None
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
            self.dropout_in = nn.Dropout(config.decoder_dropout)
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


def _keep(x: Tensor, lengths: Tensor) -> Tensor:
    """Which columns (batch, time) are no padding."""
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def _initialize(model: TransformerTTS) -> None:
    """Xavier-uniform matrices, biases of 0; embeddings and norms by their own rule."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
        elif parameter.dim() == 1:
            nn.init.zeros_(parameter)
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):  # queries, keys and values are packed
            packed, parts = (module.kv, 2) if module.is_cross else (module.qkv, 3)
            for part in packed.weight.detach().chunk(parts):
                nn.init.xavier_uniform_(part)
        if isinstance(module, nn.Embedding | nn.LayerNorm | nn.BatchNorm1d):
            module.reset_parameters()
