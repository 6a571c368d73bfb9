"""A vision transformer as an ensemble of paths: which of them the classifier sees, and how much.

The view is the paper's; how paths are found, pruned, scaled and distilled is this project's own
choice, since no official code and only the abstract could be had.

Source: Chang et al., 2023, "Revisiting Vision Transformer from the View of Path Ensemble", arXiv
2308.06548.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .tokens import TokenState

_NEEDED = ("patch_embed", "blocks", "norm", "head")
_BRANCHES = ("drop_path1", "drop_path2")


class PathEnsemble(nn.Module):
    """A model whose classifier sees a weighted sum of its paths; what its blocks see is unchanged.

    The last tokens are x_0 + sum_l (a_l + f_l): the embedded input and the outputs of all
    attention layers and MLPs, 2 depth + 1 paths. The classifier gets sum_k m_k s_k p_k of them.
    A token that enters later, as a ConViT's class token, is part of x_0; paths before it have
    zeros in its place.

    Args:
        model: one of this package, or of timm, with pre-normed blocks that add two branches.
        pruned: paths left out (m_k = 0), by number or name: "embed", "attn.1", "ffn.1", ...
        scale: whether s_k is learned: "channel" for a factor per feature, "path" for one number,
            or None for 1. It does not decay.
        initial: the value that s_k starts with.

    Raises:
        TypeError: the model's last tokens are no such sum; it is named.
        ValueError: a path does not exist, or none would be left.

    Example:
        >>> from attn_vision import VisionTransformerConfig
        >>> config = VisionTransformerConfig(16, patch_size=4, dim=24, depth=2, classes=5)
        >>> model, images = config.build().eval(), torch.randn(2, 3, 16, 16)
        >>> whole = PathEnsemble(model)
        >>> whole.names
        ('embed', 'attn.1', 'ffn.1', 'attn.2', 'ffn.2')
        >>> whole(images).allclose(model(images), atol=1e-5)
        True
    """

    no_weight_decay = frozenset({"ensemble_scale", "*pos_embed", "*cls_token"})
    path_mask: Tensor

    def __init__(
        self,
        model: nn.Module,
        pruned: Iterable[int | str] = (),
        scale: str | None = "channel",
        initial: float = 1.0,
    ):
        super().__init__()
        _check(model)
        self.model: Any = model
        depth = len(self.model.blocks)
        layers = [f"{kind}.{i}" for i in range(1, depth + 1) for kind in ("attn", "ffn")]
        self.names = ("embed", *layers)
        self.register_buffer("path_mask", torch.ones(len(self.names)))
        for path in pruned:
            self.path_mask[self.number(path)] = 0
        if not self.path_mask.any():
            raise ValueError("pruned names every path: the classifier would see nothing")
        if scale not in ("channel", "path", None):
            raise ValueError(f"scale must be 'channel', 'path' or None, got {scale!r}")
        dim = next(self.model.blocks[0].norm1.parameters()).shape[0]
        self.ensemble_scale = None
        if scale is not None:
            shape = (len(self.names), dim if scale == "channel" else 1)
            self.ensemble_scale = nn.Parameter(torch.full(shape, float(initial)))

    def number(self, path: int | str) -> int:
        """The number of a path given by name or number.

        Raises:
            ValueError: there is none.
        """
        if path in self.names:
            return self.names.index(path)
        if isinstance(path, int) and 0 <= path < len(self.names):
            return path
        raise ValueError(
            f"no path {path!r}; there are 0 to {len(self.names) - 1}: {', '.join(self.names)}"
        )

    def paths(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch tokens dim"]]:
        """The terms of the last sum, in the order of `names`.

        Raises:
            TypeError: their sum is not what the classifier reads; the model is named.
            ValueError: one of them is not finite.
        """
        blocks, found, last = self.model.blocks, {}, []

        def enters(module: nn.Module, args: tuple) -> None:
            tokens = _tokens(args[0])
            first = found.get("embed", tokens)
            new = tokens.shape[1] - first.shape[1]
            found["embed"] = torch.cat([tokens[:, :new], first], 1) if new else first

        def leaves(name: str) -> Callable:
            return lambda module, args, y: found.update({name: y})

        with ExitStack() as hooks:
            end = blocks[-1].register_forward_hook(lambda m, a, y: last.append(_tokens(y)))
            hooks.callback(end.remove)
            for i, block in enumerate(blocks, 1):
                hooks.callback(block.register_forward_pre_hook(enters).remove)
                for kind, branch in zip(("attn", "ffn"), _BRANCHES, strict=True):
                    hook = getattr(block, branch).register_forward_hook(leaves(f"{kind}.{i}"))
                    hooks.callback(hook.remove)
            self.model(images)
        for name, path in found.items():
            if not path.isfinite().all():
                raise ValueError(f"path {name} holds values that are not finite")
        tokens = last[0].shape[1]
        paths = [F.pad(found[n], (0, 0, tokens - found[n].shape[1], 0)) for n in self.names]
        read = self._read()
        apart = (sum(paths[1:], paths[0]) - last[0])[:, :read].abs().max()
        if apart > torch.finfo(apart.dtype).eps ** 0.5 * max(path.abs().max() for path in paths):
            raise TypeError(
                f"{type(self.model).__name__} does more with its tokens than to add two branches "
                "per block: its classifier does not read a sum of paths"
            )
        return paths

    def read_paths(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch read dim"]]:
        """`paths`, of the tokens that the classifier reads: those before the patches, or all."""
        return [path[:, : self._read()] for path in self.paths(images)]

    def idle(self) -> tuple[str, ...]:
        """The paths at the end that are pruned: nothing needs them computed.

        Example:
            >>> from attn_vision import VisionTransformerConfig
            >>> model = VisionTransformerConfig(16, patch_size=4, dim=24, depth=2).build()
            >>> PathEnsemble(model, pruned=["embed", "attn.2", "ffn.2"]).idle()
            ('attn.2', 'ffn.2')
        """
        last = int(self.path_mask.nonzero().max())
        return self.names[last + 1 :]

    def combined(
        self, paths: Sequence[Float[Tensor, "batch tokens dim"]], mask: Tensor | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """The sum that the classifier sees.

        Args:
            paths: as `paths` returns them.
            mask: instead of the stored one.
        """
        mask = self.path_mask if mask is None else mask
        total = torch.zeros_like(paths[0])
        for k, path in enumerate(paths):
            factor = mask[k] if self.ensemble_scale is None else mask[k] * self.ensemble_scale[k]
            total = total + factor * path
        return total

    def classified(
        self, tokens: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch classes"]:
        """What the model's norm, pooling and head make of last tokens."""
        normed = self.model.norm(tokens)
        if hasattr(self.model, "forward_head"):  # timm
            return self.model.forward_head(normed)
        return self.model.classified(TokenState(normed, None, self.model.prefix))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Class scores; those of the model itself while nothing is pruned or scaled."""
        if self.path_mask.all() and (
            self.ensemble_scale is None or (self.ensemble_scale == 1).all()
        ):
            if self.ensemble_scale is None or not torch.is_grad_enabled():
                return self.model(images)
        return self.classified(self.combined(self.paths(images)))

    def _read(self) -> int | None:
        """How many tokens the classifier reads, from the first; None for all."""
        model = self.model
        if hasattr(model, "forward_head"):  # timm
            return model.num_prefix_tokens if model.global_pool == "token" else None
        return model.prefix if model.config.pool == "class" else None

    @torch.no_grad()
    def leave_one_out(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "paths batch classes"]:
        """Class scores without each path in turn, from one pass of the blocks."""
        paths = self.paths(images)
        masks = 1 - torch.eye(len(paths), device=self.path_mask.device)
        return torch.stack([self.classified(self.combined(paths, mask)) for mask in masks])

    @torch.no_grad()
    def only_one(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "paths batch classes"]:
        """Class scores of each path alone."""
        paths = self.paths(images)
        masks = torch.eye(len(paths), device=self.path_mask.device)
        return torch.stack([self.classified(self.combined(paths, mask)) for mask in masks])


@torch.no_grad()
def greedy_pruning(
    ensemble: PathEnsemble,
    batches: Iterable[Sequence[Tensor]],
    most: int | None = None,
) -> list[tuple[str, float]]:
    """Takes away path after path while that lowers the loss; the ensemble keeps the result.

    Args:
        ensemble: is changed: its `path_mask`.
        batches: images and labels to choose on; judge on others.
        most: how many paths are taken at most.

    Returns:
        The paths taken and the mean loss after each; the first entry is ("", the loss before).
    """
    kept, labels = [], []
    for images, classes in batches:
        kept.append(torch.stack(ensemble.read_paths(images)))
        labels.append(classes)
    cached, wanted = torch.cat(kept, 1), torch.cat(labels)

    def loss(mask: Tensor) -> float:
        scores = ensemble.classified(ensemble.combined(list(cached), mask))
        return float(F.cross_entropy(scores, wanted))

    mask = ensemble.path_mask.clone()
    history = [("", loss(mask))]
    limit = len(mask) - 1 if most is None else min(most, len(mask) - 1)
    for _ in range(limit):
        trials = {}
        for k in mask.nonzero().flatten().tolist():
            without = mask.clone()
            without[k] = 0
            trials[k] = loss(without)
        if len(trials) < 2:
            break
        best = min(trials, key=lambda k: trials[k])
        if trials[best] >= history[-1][1]:
            break
        mask[best] = 0
        history.append((ensemble.names[best], trials[best]))
    ensemble.path_mask.copy_(mask)
    return history


def self_distillation(
    scores: Float[Tensor, "batch classes"],
    early: Sequence[Float[Tensor, "batch classes"]],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """How far scores of early layers are from the last ones, which are their teacher.

    Args:
        scores: of the whole model; no gradient flows into them.
        early: of heads on earlier layers.
        temperature: by which all scores are divided.

    Example:
        >>> self_distillation(torch.zeros(2, 3), [torch.zeros(2, 3)])
        tensor(0.)
    """
    teacher = (scores.detach() / temperature).log_softmax(-1)
    apart = [
        F.kl_div((s / temperature).log_softmax(-1), teacher, log_target=True, reduction="batchmean")
        for s in early
    ]
    return temperature**2 * torch.stack(apart).mean()


def high_frequencies(
    patches: Float[Tensor, "batch patches dim"], grid: tuple[int, int]
) -> Float[Tensor, ""]:
    """The mean log amplitude of patch features at frequencies above pi/2, relative to frequency 0.

    Example:
        >>> high_frequencies(torch.randn(2, 16, 8), (4, 4)).shape
        torch.Size([])
    """
    maps = patches.transpose(1, 2).unflatten(2, grid)
    amplitude = torch.fft.fft2(maps.float()).abs().clamp(min=1e-12).log().mean((0, 1))
    rows, columns = (torch.fft.fftfreq(side, device=patches.device) * 2 for side in grid)
    radius = (rows[:, None].square() + columns.square()).sqrt()
    return (amplitude - amplitude[0, 0])[radius > 0.5].mean()


def _tokens(x: Any) -> Tensor:
    return x.tokens if isinstance(x, TokenState) else x


def _check(model: Any) -> None:
    name = type(model).__name__
    missing = [part for part in _NEEDED if not hasattr(model, part)]
    if missing:
        raise TypeError(f"{name} has no {missing[0]}: its classifier does not read a sum of paths")
    if not len(model.blocks):
        raise TypeError(f"{name} has no block: there is one path")
    for block in model.blocks:
        parts = ("norm1", "norm2", *_BRANCHES)
        if not all(hasattr(block, part) for part in parts) or hasattr(block, "shrink"):
            raise TypeError(
                f"{name} has blocks of {type(block).__name__}, which do not add two branches to "
                "tokens that stay: its classifier does not read a sum of paths"
            )
