"""The pictures of a report that show what one kind of model has."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from core_attn import HeadGate, record
from core_attn.training import Exhibit

from ..models import ImageModel, VisionTransformer
from ..models.evit import EViT
from ..models.gated_positional import GatedPositionalAttention
from ..models.sparsifiner import Sparsifiner, chosen_keys, sparsity
from ..models.spectral_gate import SpectralGate
from . import pictures

Images = Float[Tensor, "images channels height width"]


def of_model(model: ImageModel, images: Images, pixels: Images) -> Iterable[Exhibit]:
    """What can be drawn of a model: attention, gates, filters, patches, keys, use of heads.

    Args:
        model: any of the package.
        images: as it takes them.
        pixels: the same, in [0, 1].
    """
    if isinstance(model, VisionTransformer):
        yield from _maps(model, images, pixels)
    gates = {n: m for n, m in model.named_modules() if isinstance(m, GatedPositionalAttention)}
    if gates:
        yield positional_gates({name: layer.gate().cpu() for name, layer in gates.items()})
    filters = {n: m for n, m in model.named_modules() if isinstance(m, SpectralGate)}
    if filters:
        yield spectral_filters(filters)
    if isinstance(model, EViT):
        yield kept_patches(model, images, pixels)
    if isinstance(model, Sparsifiner):
        yield connectivity(model, images, pixels)
        caption = (
            "Shares of zeros in the basis, its coefficients and the weights of each block, and of "
            "attention's multiplications that are saved, the predictor's counted."
        )
        yield Exhibit("Sparsity of the blocks", caption, sparsity(model, images))
    routers = {n: m for n, m in model.named_modules() if isinstance(m, HeadGate) and m.choices}
    if routers:
        yield head_use(model, images, routers)


def _maps(model: VisionTransformer, images: Images, pixels: Images) -> Iterable[Exhibit]:
    with record(model, "pattern") as seen:
        model(images)
        patterns = {name: pattern.cpu() for name, pattern in seen.items()}
    grid, prefix = model.config.grid, model.prefix
    patches = grid[0] * grid[1]
    among, looking = {}, {}
    for name, pattern in patterns.items():
        first = prefix if pattern.shape[-1] >= prefix + patches else 0
        if min(pattern.shape[-2:]) < patches:  # patches were dropped before, or one query asks
            continue
        shown = pattern[..., : first + patches, : first + patches]
        among[name] = shown[..., first:, first:]
        if first and model.config.class_token:
            looking[name] = shown
    if looking:
        yield pictures.class_attention(pixels, looking, grid, prefix)
    if among:
        yield pictures.head_distances(among, grid, 0)


def positional_gates(gates: dict[str, Float[Tensor, " _heads"]]) -> Exhibit:
    """How much of each head's weights is position, layer by layer."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    rows = []
    for layer, (name, values) in enumerate(gates.items()):
        axis.scatter([layer] * len(values), values.tolist(), s=22, color="#1f77b4", alpha=0.7)
        rows += [{"layer": name, "head": h, "gate": float(g)} for h, g in enumerate(values)]
    axis.axhline(
        float(torch.ones(()).sigmoid()), color="gray", lw=0.8, ls="--", label="at the start"
    )
    axis.set(xlabel="block", ylabel="share of position", ylim=(0, 1))
    axis.locator_params(axis="x", integer=True)
    axis.legend(frameon=False, fontsize=8)
    caption = "Gate of each head: 1 looks by position alone, 0 by content alone."
    return Exhibit("Gates of the heads", caption, figure, rows)


@torch.no_grad()
def spectral_filters(gates: dict[str, SpectralGate], channels: int = 6) -> Exhibit:
    """The strength of each gate over the frequencies: all channels, then the strongest ones."""
    size = (1.2 * (channels + 1), 1.3 * len(gates) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(gates), channels + 1, squeeze=False)
    for row, (name, gate) in zip(axes, gates.items(), strict=True):
        strength = torch.fft.fftshift(torch.fft.fft2(gate.kernel(), dim=(0, 1)).abs(), (0, 1)).cpu()
        strongest = strength.square().sum((0, 1)).argsort(descending=True)[:channels].tolist()
        shown = [strength.mean(-1), *(strength[..., channel] for channel in strongest)]
        titles = ["mean", *(f"channel {channel}" for channel in strongest)]
        for axis, values, title in zip(row, shown, titles, strict=False):
            axis.imshow(values.numpy(), cmap="viridis")
            axis.set_title(title, fontsize=7)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name.removesuffix(".attn"), fontsize=7)
    caption = (
        "Strength of each gate's filter over the frequencies, 0 in the middle: the mean of all "
        "channels, then the strongest channels; each map on its own scale."
    )
    return Exhibit("Spectral filters", caption, figure)


@torch.no_grad()
def kept_patches(model: EViT, images: Images, pixels: Images) -> Exhibit:
    """The patches that go on after each shrinking block; a veil is over the others."""
    after, states = {}, []
    hooks = [
        block.mlp.register_forward_hook(lambda m, args, y: states.append(args[0]))
        for block in model.blocks
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    before = None
    for number, state in enumerate(states):
        if state.kept is not None and (before is None or state.kept.shape != before.shape):
            after[number], before = state.kept.cpu(), state.kept
    grid, shown = model.config.grid, pixels[:6]
    grey = shown.shape[1] == 1
    veil = torch.tensor([0.35, 0.55, 0.9] if grey else [0.6] * 3)[:, None, None]
    figure = Figure(figsize=(1.3 * len(shown), 1.4 * (len(after) + 1)), layout="constrained")
    axes = figure.subplots(len(after) + 1, len(shown), squeeze=False)
    for i, image in enumerate(shown):
        pictures.show(axes[0, i], image)
        for row, (number, kept) in enumerate(after.items(), 1):
            mask = torch.zeros(grid[0] * grid[1])
            mask[kept[i][kept[i] >= 0]] = 1  # fused tokens have negative numbers
            scale = [side // cells for side, cells in zip(image.shape[-2:], grid, strict=True)]
            full = mask.view(grid).repeat_interleave(scale[0], 0).repeat_interleave(scale[1], 1)
            pictures.show(axes[row, i], image * full + veil * (1 - full))
            if i == 0:
                axes[row, 0].set_ylabel(f"block {number}", fontsize=8)
    axes[0, 0].set_ylabel("image", fontsize=8)
    color = "blue" if grey else "grey"
    caption = f"Patches that go on after each shrinking block; those dropped or fused are {color}."
    return Exhibit("Kept patches", caption, figure)


@torch.no_grad()
def connectivity(
    model: Sparsifiner, images: Images, pixels: Images, patch: int | None = None
) -> Exhibit:
    """The keys that the predictor of each block chooses for one patch, the share of the heads.

    Args:
        model: whose predictors.
        images: as it takes them.
        pixels: the same, in [0, 1].
        patch: whose query; the middle one by default.
    """
    grid = model.config.grid
    patch = grid[0] // 2 * grid[1] + grid[1] // 2 if patch is None else patch
    masks = [mask.float().mean(1) for _, mask in chosen_keys(model, images)]
    shown = pixels[:4]
    figure = Figure(figsize=(1.2 * (len(masks) + 1), 1.3 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), len(masks) + 1, squeeze=False)
    for i, image in enumerate(shown):
        pictures.show(axes[i, 0], image)
        for block, mask in enumerate(masks, 1):
            axis = axes[i, block]
            axis.imshow(mask[i, 1 + patch, 1:].view(grid).cpu(), cmap="viridis", vmin=0, vmax=1)
            axis.plot(patch % grid[1], patch // grid[1], "r+", ms=6)
            axis.set(xticks=[], yticks=[])
            if i == 0:
                axis.set_title(f"block {block - 1}", fontsize=8)
    caption = "Keys chosen for the patch marked by a cross: bright where all heads choose them."
    return Exhibit("Connectivity of a patch", caption, figure)


@torch.no_grad()
def head_use(model: ImageModel, images: Images, routers: dict[str, HeadGate]) -> Exhibit:
    """The share of tokens that each routed head acts for."""
    shares: dict[str, Tensor] = {}

    def count(name: str, gates: Tensor) -> None:
        routed = gates[..., routers[name].shared :]
        shares[name] = (routed > 0).float().mean((0, 1)).cpu()

    hooks = [
        router.register_forward_hook(lambda m, a, gates, name=name: count(name, gates))  # pyright: ignore[reportArgumentType]
        for name, router in routers.items()
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    rows = []
    for layer, (name, share) in enumerate(shares.items(), 1):
        axis.scatter([layer] * len(share), share.tolist(), s=20, color="#1f77b4", alpha=0.7)
        rows += [{"layer": name, "head": h, "share": float(s)} for h, s in enumerate(share)]
    axis.set(xlabel="layer with a router", ylabel="share of tokens", ylim=(0, 1))
    axis.locator_params(axis="x", integer=True)
    caption = "How many tokens each routed head acts for; a head at 0 is not used."
    return Exhibit("Use of the routed heads", caption, figure, rows)
