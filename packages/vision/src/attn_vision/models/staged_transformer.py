"""The skeleton of hierarchical models: stages, each on a coarser map than the one before."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from .skeleton import ImageConfig, ImageModel
from .tokens import TokenState


@dataclass(frozen=True)
class StagedConfig(ImageConfig):
    """Widths and depths of the stages.

    Attributes:
        dims: features in each stage.
        depths: blocks of each stage.
    """

    dims: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 6, 2)

    def __post_init__(self):
        """Refuses stages that do not match."""
        super().__post_init__()
        self.require_per_stage("dims")

    def require_per_stage(self, *names: str) -> None:
        """Requires that these fields have one entry per stage.

        Raises:
            ValueError: one has not; the message names it.
        """
        for name in names:
            if len(getattr(self, name)) != len(self.depths):
                raise ValueError(
                    f"{name} must have one entry per stage ({len(self.depths)}, by depths), "
                    f"got {getattr(self, name)}"
                )


class Stage(nn.Module):
    """Embeds or downsamples a map, passes it through blocks, and returns a map.

    What passes between the three is up to the family: a `TokenState` (then `norm` ends in
    `ToMap`) or a map all along.

    Args:
        embed: from images, or the map of the stage before, to what the blocks take.
        blocks: in order.
        norm: from what the blocks give to a map (batch, dim, rows, columns).
    """

    def __init__(self, embed: nn.Module, blocks: list[nn.Module], norm: nn.Module):
        super().__init__()
        self.embed, self.blocks, self.norm = embed, nn.ModuleList(blocks), norm

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows columns"]:
        """The map of this stage."""
        state = self.embed(x)
        for block in self.blocks:
            state = block(state)
        return self.norm(state)


class ToMap(nn.Module):
    """A layer norm over the features of each token, and the tokens laid out on their grid.

    Example:
        >>> import torch
        >>> ToMap(8)(TokenState(torch.randn(1, 6, 8), grid=(2, 3))).shape
        torch.Size([1, 8, 2, 3])
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, state: TokenState) -> Float[Tensor, "batch dim rows columns"]:
        """The normalized map."""
        return state.with_tokens(self.norm(state.tokens)).feature_map


class StagedTransformer(ImageModel):
    """Images -> a map per stage -> the mean of the last map -> class scores.

    Subclasses implement `make_embed` and `make_block`, and override `make_norm`, `pool` or
    `make_head` where they differ.

    Args:
        config: its shape.
    """

    config: StagedConfig

    def __init__(self, config: StagedConfig):
        super().__init__(config)
        self.stages = nn.ModuleList(map(self._make_stage, range(len(config.depths))))
        self.head = self.make_head()
        self.init_weights()

    def make_embed(self, stage: int) -> nn.Module:
        """Builds what turns images (stage 0), or the map of the stage before, into tokens."""
        raise NotImplementedError

    def make_block(self, stage: int, index: int) -> nn.Module:
        """Builds block number `index` of a stage, skipped at `drop_path_rate(stage, index)`."""
        raise NotImplementedError

    def make_norm(self, stage: int) -> nn.Module:
        """Builds what turns the last block's tokens into the map of the stage."""
        return ToMap(self.config.dims[stage])

    def make_head(self) -> nn.Module:
        """Builds what turns pooled features into scores."""
        c = self.config
        return nn.Linear(c.dims[-1], c.classes) if c.classes else nn.Identity()

    def drop_path_rate(self, stage: int, index: int) -> float:
        """Rises linearly over all blocks of all stages."""
        c = self.config
        return c.drop_path * (sum(c.depths[:stage]) + index) / max(sum(c.depths) - 1, 1)

    def features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """The map of each stage, the finest first.

        Raises:
            ValueError: the images' channels or sides do not fit.
        """
        maps = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else images))
        return maps

    def pool(
        self, maps: list[Float[Tensor, "batch _dim _rows _columns"]]
    ) -> Float[Tensor, "batch dim"]:
        """What the head reads: the mean over the last map."""
        return maps[-1].mean((2, 3))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Class scores; pooled features where there are no classes.

        Raises:
            ValueError: the images' channels or sides do not fit.
        """
        return self.head(self.pool(self.features(images)))

    def _make_stage(self, stage: int) -> Stage:
        blocks = [self.make_block(stage, index) for index in range(self.config.depths[stage])]
        return Stage(self.make_embed(stage), blocks, self.make_norm(stage))
