"""The sizes and options of Transformer TTS."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from .blocks import FeedForwardKind
from .bounds import require_at_least, require_one_of

if TYPE_CHECKING:
    from .transformer_tts import TransformerTTS


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
        require_at_least(
            1, self,
            "mels embed_dim dim heads decoder_depth encoder_hidden decoder_hidden "
            "encoder_prenet_dim encoder_prenet_kernel decoder_prenet_dim postnet_dim "
            "postnet_kernel feed_forward_kernel reduction",
        )  # fmt: skip
        require_at_least(
            0, self,
            "encoder_depth encoder_prenet_layers decoder_prenet_layers postnet_layers speakers "
            "languages speaker_dim",
        )  # fmt: skip
        require_one_of(get_args(FeedForwardKind), self, "feed_forward")
        require_one_of(("add", "concat"), self, "speaker_mode")
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary must hold padding and end, got {self.vocabulary}")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        if self.encoder_prenet_layers == 0 and self.embed_dim != self.dim:
            raise ValueError(
                f"without an encoder pre-net embed_dim {self.embed_dim} must be dim {self.dim}"
            )

    def build(self) -> "TransformerTTS":
        """The network, freshly initialized."""
        from .transformer_tts import TransformerTTS

        return TransformerTTS(self)
