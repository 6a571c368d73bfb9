"""How much the output of a head depends on the picture."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..sites import Change, Sites, find_sites


class VisionLanguage:
    """A Hugging Face vision-language model: its decoder, and its text without the picture.

    Args:
        model: LLaVA, LLaVA-NeXT, Qwen2-VL, InstructBLIP or one built like them.

    Attributes:
        decoder: the language model's stack of layers.
        sites: the attention layers in it.

    Raises:
        ValueError: the model is of another kind; the message says what was looked for.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        config = getattr(model, "config", None)
        names = ("image_token_id", "image_token_index")
        tokens = [getattr(config, name, None) for name in names]
        self.image_token = next((token for token in tokens if isinstance(token, int)), None)
        if self.image_token is None:
            raise ValueError(
                f"{type(model).__name__} is not known here: its config has none of "
                f"{', '.join(names)}"
            )
        self.sites: Sites = find_sites(model)
        first = next(iter(self.sites))
        self.decoder = _owner_of_layers(model, first)
        around = (getattr(config, f"vision_{side}_token_id", None) for side in ("start", "end"))
        self._dropped = [self.image_token, *(token for token in around if isinstance(token, int))]
        for name, site in self.sites.items():
            width, dim = site.output_weight.shape[1], site.layer.head_dim
            if width != site.num_heads * dim:
                raise ValueError(
                    f"{name}: {width} features are not {site.num_heads} heads of {dim}"
                )

    def without_image(
        self, ids: Int[Tensor, "batch tokens"], mask: Int[Tensor, "batch tokens"] | None = None
    ) -> tuple[Int[Tensor, "batch text"], Int[Tensor, "batch text"]]:
        """The text tokens and their attention mask, padded on the left.

        Raises:
            ValueError: there is no image token, or padding is on the right.
        """
        mask = torch.ones_like(ids) if mask is None else mask
        if not (ids == self.image_token).any(-1).all():
            raise ValueError(f"no image token (id {self.image_token}) in the prompt")
        if not mask[:, -1].all():
            raise ValueError("padding must be on the left: the last position predicts the next")
        kept = mask.bool()
        for token in self._dropped:
            kept &= ids != token
        longest = int(kept.sum(-1).max())
        text, real = ids.new_zeros(len(ids), longest), mask.new_zeros(len(ids), longest)
        for row, keep in enumerate(kept):
            count = int(keep.sum())
            text[row, longest - count :] = ids[row, keep]
            real[row, longest - count :] = 1
        return text, real

    def layers(self, chosen: "str | list[int]" = "auto") -> list[str]:
        """Names of layers by number; "auto" is the second and the last 14 of 32 (in proportion).

        Raises:
            TypeError: something that is no whole number.
            ValueError: a number out of range.
        """
        names = list(self.sites)
        if chosen == "auto":
            last = round(len(names) * 14 / 32)
            chosen = sorted({min(1, len(names) - 1), *range(len(names) - last, len(names))})
        if isinstance(chosen, str):
            raise ValueError(f"layers must be 'auto' or a list of numbers, got {chosen!r}")
        for number in chosen:
            if not isinstance(number, int):
                raise TypeError(f"layers must be whole numbers, got {number!r}")
            if not 0 <= number < len(names):
                raise ValueError(f"layer {number} is not among the layers 0 to {len(names) - 1}")
        return [names[number] for number in chosen]


def _owner_of_layers(model: nn.Module, site: str) -> nn.Module:
    parts = site.split(".")
    for end in range(len(parts), 0, -1):
        owner = model.get_submodule(".".join(parts[: end - 1]))
        if isinstance(getattr(owner, "layers", None), nn.ModuleList) and parts[end - 1] == "layers":
            return owner
    raise ValueError(f"no stack of layers around {site}; looked for a ModuleList 'layers'")


@dataclass(frozen=True)
class Rule:
    """Which heads of a layer depend on the picture.

    Those above the median of the divergences, after heads whose divergence comes from a surge
    when the picture is taken away were set to 0: where both the divergence and the squared norm
    without the picture are above mean + standard deviation of the layer. The median of an even
    number is the lower of the two in the middle; the standard deviation is the unbiased one. The
    paper states neither.

    Attributes:
        outliers: whether surging heads are set to 0.
        squared: whether squared distances decide, as in a port to Qwen.
        raw_median: whether the median is that before heads were set to 0.
    """

    outliers: bool = True
    squared: bool = False
    raw_median: bool = False

    def select(
        self,
        with_image: Float[Tensor, "batch heads dim"],
        without: Float[Tensor, "batch heads dim"],
    ) -> Bool[Tensor, "batch heads"]:
        """The heads to reinforce.

        Example:
            >>> Rule(outliers=False).select(torch.tensor([[[3.0], [1.0]]]), torch.zeros(1, 2, 1))
            tensor([[ True, False]])
        """
        divergence = head_divergence(with_image, without)
        if self.squared:
            divergence = divergence.square()
        raw = divergence
        if self.outliers and divergence.shape[-1] > 1:
            alone = without.float().square().sum(-1)
            surge = _surging(divergence) & _surging(alone)
            divergence = divergence.masked_fill(surge, 0)
        middle = (raw if self.raw_median else divergence).median(-1, keepdim=True).values
        return divergence > middle


def head_divergence(
    with_image: Float[Tensor, "*batch dim"], without: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch"]:
    """VHD: the Euclidean distance of a head's outputs with and without the picture.

    Source: He et al., 2025, arXiv 2412.13949, section 3.
    """
    return (with_image - without).float().norm(dim=-1)


def _surging(x: Tensor) -> Tensor:
    return x > x.mean(-1, keepdim=True) + x.std(-1, keepdim=True)


@torch.no_grad()
def token_divergence(
    model: nn.Module, inputs: Mapping[str, Any], generated: Int[Tensor, "batch new"]
) -> Float[Tensor, "batch new layers heads"]:
    """VHD of every head for every generated token, by two teacher-forced passes.

    Args:
        model: a vision-language model, in evaluation mode.
        inputs: the prompt as its processor made it, with `input_ids` and `pixel_values`.
        generated: the tokens that followed.

    Raises:
        ValueError: as in `VisionLanguage`.
    """
    known = VisionLanguage(model)
    ids, new = inputs["input_ids"], generated.shape[1]
    mask = inputs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    text, real = known.without_image(ids, mask)
    more = torch.ones_like(generated)
    whole = dict(inputs) | {
        "input_ids": torch.cat([ids, generated], 1),
        "attention_mask": torch.cat([mask, more.to(mask)], 1),
    }
    if (kinds := inputs.get("mm_token_type_ids")) is not None:
        whole["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(generated).to(kinds)], 1)
    seen: list[dict[str, Tensor]] = []
    for run in (
        lambda: model(**whole),
        lambda: known.decoder(
            input_ids=torch.cat([text, generated], 1),
            attention_mask=torch.cat([real, more.to(real)], 1),
        ),
    ):
        kept: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for name, site in known.sites.items():
                stack.enter_context(site.on_heads(_keep(kept, name, new)))
            run()
        seen.append(kept)
    return torch.stack([head_divergence(seen[0][name], seen[1][name]) for name in known.sites], 2)


def _keep(kept: dict[str, Tensor], name: str, new: int) -> Change:
    def keep(x: Tensor) -> None:
        kept[name] = x[:, -new - 1 : -1]

    return keep


def top_divergence(
    divergence: Float[Tensor, "*batch layers heads"], top: int | None = None
) -> Float[Tensor, "*batch"]:
    """T-VHD: the sum over layers of the `top` largest divergences of a layer.

    Args:
        divergence: of every head.
        top: a quarter of the heads by default, which is this project's choice.

    Raises:
        ValueError: more heads than there are, or fewer than one.

    Example:
        >>> top_divergence(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 5]]), top=2)
        tensor(12.)
    """
    heads = divergence.shape[-1]
    top = max(1, heads // 4) if top is None else top
    if not 1 <= top <= heads:
        raise ValueError(f"top must be 1 to {heads}, the heads of a layer; got {top}")
    return divergence.topk(top, -1).values.sum((-1, -2))
