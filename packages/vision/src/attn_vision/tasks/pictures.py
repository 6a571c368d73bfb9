"""The pictures of a classification report."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from core_attn.training import Exhibit

from ..analysis import distances


def predictions(
    pixels: Float[Tensor, "images channels height width"],
    probabilities: Float[Tensor, "images classes"],
    labels: Int[Tensor, " images"],
    names: Sequence[str],
) -> Exhibit:
    """Test images with the class that the model names and its probability."""
    figure = Figure(figsize=(1.25 * len(pixels), 1.75), layout="constrained")
    for i, axis in enumerate(figure.subplots(1, len(pixels), squeeze=False)[0]):
        guess = int(probabilities[i].argmax())
        show(axis, pixels[i])
        color = "#1a7f37" if guess == labels[i] else "#c0392b"
        axis.set_title(f"{names[guess]}\n{probabilities[i, guess]:.0%}", fontsize=8, color=color)
    wrong = int((probabilities.argmax(-1) != labels).sum())
    caption = f"The first {len(pixels)} test images; {wrong} of them wrong (red)."
    return Exhibit("Predictions", caption, figure)


def confusion(counts: Int[Tensor, "classes classes"], names: Sequence[str]) -> Exhibit:
    """How often each class was taken for each other one."""
    size = max(3.0, 0.42 * len(names))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axis = figure.subplots()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 20:
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        for row, column in counts.nonzero().tolist():
            color = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(int(counts[row, column])), ha="center", va="center",
                      fontsize=7, color=color)  # fmt: skip
    axis.set(xlabel="predicted", ylabel="true")
    right = counts.diagonal().sum() / counts.sum()
    caption = (
        f"{right:.2%} of {int(counts.sum())} test images are right; counts, rows sum to a class."
    )
    return Exhibit("Confusion", caption, figure)


def class_attention(
    pixels: Float[Tensor, "images channels height width"],
    patterns: Mapping[str, Float[Tensor, "_images _heads _queries _keys"]],
    grid: tuple[int, int],
    prefix: int,
) -> Exhibit:
    """What the class token of the last block looks at, head by head, over the images."""
    name, pattern = list(patterns.items())[-1]
    heads = pattern.shape[1]
    shown = pixels[:6]
    maps = pattern[: len(shown), :, 0, prefix:].unflatten(-1, grid)
    maps = F.interpolate(maps, shown.shape[-2:], mode="bilinear", align_corners=False)
    figure = Figure(figsize=(1.3 * len(shown), 1.35 * (heads + 1)), layout="constrained")
    axes = figure.subplots(heads + 1, len(shown), squeeze=False)
    for i, image in enumerate(shown):
        show(axes[0, i], image)
        for head in range(heads):
            axis = axes[head + 1, i]
            show(axis, image)
            axis.imshow(maps[i, head].numpy(), cmap="inferno", alpha=0.65)
            if i == 0:
                axis.set_ylabel(f"head {head}", fontsize=8)
    axes[0, 0].set_ylabel("image", fontsize=8)
    caption = (
        f"Weights of the class token in {name}, one row per head, bright where it looks; "
        "each map on its own scale."
    )
    return Exhibit("Attention over images", caption, figure)


def head_distances(
    patterns: Mapping[str, Float[Tensor, "_images _heads _queries _keys"]],
    grid: tuple[int, int],
    prefix: int,
) -> Exhibit:
    """How far each head looks, over depth."""
    distance = distances(grid)
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    means = []
    for layer, pattern in enumerate(patterns.values()):
        among = pattern[..., prefix:, prefix:]
        among = among / among.sum(-1, keepdim=True).clamp(min=1e-9)
        heads = (among * distance).sum(-1).mean((0, 2))
        means.append(float(heads.mean()))
        axis.scatter(
            [layer] * len(heads), heads.tolist(), s=18, color="#1f77b4", alpha=0.7, linewidths=0
        )
    axis.plot(means, color="#1f77b4", lw=1, label="mean of the heads")
    axis.axhline(float(distance.mean()), color="gray", lw=0.8, ls="--", label="uniform attention")
    axis.set(xlabel="block", ylabel="mean distance (patches)", ylim=(0, None))
    axis.locator_params(axis="x", integer=True)
    axis.legend(frameon=False, fontsize=8)
    caption = "Mean distance from a patch to the patches it attends to; one dot per head."
    return Exhibit("Reach of the heads", caption, figure)


def show(axis, image: Float[Tensor, "channels height width"]) -> None:
    """Draws an image of values in [0, 1] without ticks."""
    pixels = image.permute(1, 2, 0).squeeze(-1).numpy()
    axis.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
