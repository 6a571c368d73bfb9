"""Transformer TTS: phonemes to a mel spectrogram by an autoregressive transformer."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import MultiHeadAttention

from .convolutions import ConvStack
from .encoder_decoder import PADDING, Decoder, Encoder, within
from .tts_config import TransformerTTSConfig


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
        if torch.compiler.is_dynamo_compiling():  # inductor cannot order strides of frames // r
            torch._dynamo.graph_break()
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
        return before + self.postnet(before, within(before, lengths))

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
