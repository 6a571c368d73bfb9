"""Centroids of on-line k-means that route tokens to clusters."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from core_attn import AuxiliaryLoss

Style = Literal["google", "lucidrains"]


class Centroids(nn.Module):
    """Means per head; tokens are compared with them by dot product.

    They are buffers: `update` moves them, once per training step, by what the last forward pass
    in training saw. A second pass over the same batch, as under checkpointing, changes nothing.

    Args:
        heads: routing heads.
        clusters: means per head.
        dim: features of a head.
        style: "google": moving averages of counts and sums over layer-normed vectors, means random
            at first. "lucidrains": a moving average of one k-means step over vectors of norm 1,
            means from the first training batch.
        decay: of the moving averages.
        commitment: weight of the loss that pulls vectors to their means.
        ema_count_init: what the counts begin at (google). The official 0 lengthens all means at
            the first update, by about (1 - decay)^-1 / count.
        masked: whether padding is left out of loss and update; lucidrains leaves it in.

    Source: Roy et al., 2020, "Efficient Content-Based Sparse Attention with Routing
        Transformers", arXiv 2003.05997, section 4.

    Example:
        >>> import torch
        >>> centroids = Centroids(heads=2, clusters=3, dim=4)
        >>> centroids(torch.randn(1, 2, 5, 4)).shape
        torch.Size([1, 2, 5, 3])
    """

    means: Tensor
    ema_means: Tensor
    ema_count: Tensor
    initialized: Tensor

    def __init__(
        self,
        heads: int,
        clusters: int,
        dim: int,
        *,
        style: Style = "google",
        decay: float = 0.999,
        commitment: float = 1e-4,
        ema_count_init: float = 0.0,
        masked: bool = True,
    ):
        super().__init__()
        self.style, self.decay, self.masked = style, decay, masked
        self.ema_count_init = ema_count_init
        means = F.layer_norm(torch.randn(heads, clusters, dim), (dim,))
        self.register_buffer("means", means if style == "google" else torch.zeros_like(means))
        self.register_buffer("initialized", torch.tensor(style == "google"))
        if style == "google":
            self.register_buffer("ema_means", means.clone())
            self.register_buffer("ema_count", torch.full((heads, clusters), float(ema_count_init)))
        self.commitment = AuxiliaryLoss(commitment)
        self._seen: tuple[Tensor, Tensor | None] | None = None

    def normed(self, x: Float[Tensor, "batch heads tokens dim"]) -> Tensor:
        """The vectors as they are compared, in float32 or more."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.style == "google":
            return F.layer_norm(x, x.shape[-1:], eps=1e-6)
        return F.normalize(x, dim=-1)

    def forward(
        self,
        x: Float[Tensor, "batch heads tokens dim"],
        y: Float[Tensor, "batch heads tokens dim"] | None = None,
        valid: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch heads vectors clusters"]:
        """The similarity of each vector with each mean; leaves the commitment loss.

        Args:
            x: queries, or what serves as queries and keys.
            y: keys, where they are others; their similarities follow those of `x`.
            valid: False at padding.

        Raises:
            ValueError: the centroids are not initialized.
        """
        vectors = x if y is None else torch.cat((x, y), 2)
        normed = self.normed(vectors)
        if not self.masked:
            valid = None
        if not torch.compiler.is_compiling():
            if not self.initialized and self.training:
                self.initialize(normed.detach(), valid)
            if not self.initialized:
                raise ValueError(
                    "centroids are not initialized: run a training step or call init_centroids"
                )
        similarity = normed.detach() @ self.means.to(normed.dtype).transpose(-1, -2)
        if self.training or torch.is_grad_enabled():
            self._leave_loss(normed, similarity.argmax(-1), valid)
        if self.training:
            self._seen = normed.detach(), valid
        return similarity

    def _leave_loss(self, normed: Tensor, nearest: Tensor, valid: Tensor | None) -> None:
        means = self.means.to(normed.dtype).expand(len(normed), -1, -1, -1)
        wanted = means.gather(2, nearest[..., None].expand(-1, -1, -1, means.shape[-1]))
        distance = (normed - wanted).square()
        if valid is None:
            loss = distance.mean()
        else:
            mask = _repeated(valid, normed.shape[2])[:, None, :, None]
            several = normed.shape[1] * normed.shape[3]
            loss = distance.masked_fill(~mask, 0.0).sum() / (mask.sum().clamp(min=1) * several)
        # The official google code has a term for queries and one for keys, equal where shared.
        self.commitment(2 * loss if self.style == "google" else loss)

    @torch.no_grad()
    def initialize(
        self, x: Float[Tensor, "batch heads tokens dim"], valid: Tensor | None = None
    ) -> None:
        """Means from random tokens, then ten steps of k-means; the same in every process."""
        flat = x.transpose(0, 1).flatten(1, 2)
        allowed = torch.arange(flat.shape[1], device=x.device)
        if valid is not None:
            allowed = allowed[_repeated(valid, x.shape[2]).flatten()]
        clusters = self.means.shape[1]
        shuffled = torch.randperm(len(allowed), device="cpu").to(x.device)
        picked = allowed[shuffled[torch.arange(clusters, device=x.device) % len(allowed)]]
        means = flat[:, picked].contiguous()
        if _parallel():
            distributed.broadcast(means, 0)
        for _ in range(10):
            means = kmeans_step(x, means, valid)
        self.means.copy_(means)
        if self.style == "google":
            self.ema_means.copy_(means)
            self.ema_count.fill_(self.ema_count_init)
        self.initialized.fill_(True)

    @torch.no_grad()
    def update(self) -> None:
        """Moves the means by what the last forward pass in training saw; then forgets it."""
        if self._seen is None:
            return
        (x, valid), self._seen = self._seen, None
        if self.style == "lucidrains":
            new = kmeans_step(x, self.means.to(x.dtype), valid)
            self.means.lerp_(new.to(self.means.dtype), 1 - self.decay)
            return
        counts, sums = assigned(x, self.means.to(x.dtype), valid)
        self.ema_count.lerp_(counts.to(self.ema_count.dtype), 1 - self.decay)
        self.ema_means.lerp_(sums.to(self.ema_means.dtype), 1 - self.decay)
        total = self.ema_count.sum(-1, keepdim=True)
        share = (self.ema_count + 1e-5) / (total + self.ema_count.shape[-1] * 1e-5)
        self.means.copy_(self.ema_means / (share * total)[..., None])


def kmeans_step(
    x: Float[Tensor, "batch heads tokens dim"],
    means: Float[Tensor, "heads clusters dim"],
    valid: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "heads clusters dim"]:
    """The normed sums of the vectors nearest to each mean; a mean without any stays.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[2.0, 0.0], [3.0, 0.0]]]])
        >>> kmeans_step(x, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """
    counts, sums = assigned(x, means, valid)
    return torch.where(counts[..., None] > 0, F.normalize(sums, dim=-1), means)


def assigned(
    x: Float[Tensor, "batch heads tokens dim"],
    means: Float[Tensor, "heads clusters dim"],
    valid: Bool[Tensor, "batch tokens"] | None = None,
) -> tuple[Float[Tensor, "heads clusters"], Float[Tensor, "heads clusters dim"]]:
    """How many vectors are nearest to each mean, and their sum, over all processes."""
    nearest = (x @ means.transpose(-1, -2)).argmax(-1)
    one_hot = F.one_hot(nearest, means.shape[1]).to(x.dtype)
    if valid is not None:
        one_hot = one_hot * _repeated(valid, x.shape[2])[:, None, :, None]
    counts, sums = one_hot.sum((0, 2)), torch.einsum("bhtk,bhtd->hkd", one_hot, x)
    if _parallel():
        both = torch.cat((counts[..., None], sums), -1)
        distributed.all_reduce(both)
        counts, sums = both[..., 0], both[..., 1:]
    return counts, sums


def update_centroids(model: nn.Module) -> None:
    """Moves all centroids of a model by the last training batch: call it once per training step."""
    for module in model.modules():
        if isinstance(module, Centroids):
            module.update()


def lacks_centroids(model: nn.Module) -> bool:
    """Whether a model has centroids that are to come from data and did not."""
    return any(isinstance(m, Centroids) and not m.initialized for m in model.modules())


@torch.no_grad()
def init_centroids(model: nn.Module, ids: Tensor, lengths: Tensor | None = None) -> None:
    """Sets all centroids of a model from one batch, without training."""
    was_training = model.training
    for module in model.modules():
        if isinstance(module, Centroids):
            module.initialized.fill_(False)
    model.train()
    try:
        with torch.compiler.set_stance("force_eager"):  # no compiled program may hold this
            model(ids, lengths)
    finally:
        model.train(was_training)
    for module in model.modules():
        if isinstance(module, Centroids):
            module._seen = None


def _repeated(valid: Tensor, tokens: int) -> Tensor:
    """The mask once for queries and once for keys, where both are there."""
    return valid if valid.shape[1] == tokens else torch.cat((valid, valid), 1)


def _parallel() -> bool:
    return distributed.is_available() and distributed.is_initialized()
