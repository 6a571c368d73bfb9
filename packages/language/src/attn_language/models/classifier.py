"""A classifier on the blocks of any language model."""

from dataclasses import dataclass, field, replace

from jaxtyping import Float, Int
from torch import Tensor, nn

from .decoder import DecoderConfig, valid_tokens
from .transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Shape of a classifier.

    Attributes:
        vocab: number of token ids.
        classes: outputs.
        trunk: the model whose features are pooled; its vocabulary is replaced.
    """

    vocab: int = 256
    classes: int = 2
    trunk: DecoderConfig = field(default_factory=TransformerConfig)

    def build(self) -> "Classifier":
        """The model, untrained."""
        return Classifier(self)


class Classifier(nn.Module):
    """Token ids -> class scores: a trunk, the mean of its features over the text, a linear map.

    The classifier of SpikeGPT's authors is not in their repository; this pooling is our choice.

    Example:
        >>> import torch
        >>> model = ClassifierConfig(vocab=20, classes=3).build()
        >>> model(torch.randint(20, (2, 5)), torch.tensor([5, 3])).shape
        torch.Size([2, 3])
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        self.trunk = replace(config.trunk, vocab=config.vocab).build()
        self.trunk.head = None
        self.head = nn.Linear(config.trunk.dim, config.classes)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Class scores; a text without a token gets those of zero features.

        Raises:
            ValueError: lengths or ids do not fit.
        """
        x, valid = self.trunk.features(ids, lengths), valid_tokens(ids, lengths)
        if valid is None:
            return self.head(x.mean(1))
        total = x.masked_fill(~valid[..., None], 0.0).sum(1)
        return self.head(total / valid.sum(1, keepdim=True).clamp(min=1))
