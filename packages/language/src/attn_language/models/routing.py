"""The Routing Transformer: some heads attend in local windows, the others within clusters."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from core_attn import AttentionLayer
from core_attn.ops import scatter_mean, top_positions

from .centroids import Centroids, Style
from .decoder import DecoderConfig, Embedding, PreNormBlock
from .local_heads import LocalHeads, RelativeTerms, attend_relative
from .parts import FeedForward, GatedFeedForward, Growing, rotate, split_heads

Membership = Literal["topk", "causal"]
_ALONE = -5e4  # the score of a token for itself, which counts only where there is nothing else


@dataclass(frozen=True, kw_only=True)
class RoutingConfig(DecoderConfig):
    """Shape of a Routing Transformer.

    Attributes:
        heads: local and routing heads together.
        local_heads: of these, local ones: in every block, or a number for each.
        head_dim: features of a head; dim / heads by default.
        clusters: per routing head; context / window by default.
        window: tokens of a cluster.
        local_window: block of a local head, which sees its own and the one before; `window` by
            default.
        style: "google" (the paper's) or "lucidrains" (the PyTorch port).
        selection: "topk", as published: a cluster takes its `window` nearest tokens out of the
            whole text, so that later tokens decide whether earlier ones take part. "causal": a
            token belongs to its nearest cluster and attends to the last `window` members up to
            itself.
        shared_qk: whether queries serve as keys in routing heads.
        relative: whether routing heads have learned relative positions in their cluster (google).
        max_relative: farthest rank that is told apart.
        memory_slots: learned keys and values per cluster, always visible (lucidrains).
        embedding_dim: features of the embedding; `dim` by default.
        hidden: features inside the feed-forward; 4 dim by default.
        gated: whether the feed-forward has a gate.
        first_routing: the first block with routing heads; in those before all heads are local.
        commitment: weight of the loss that pulls tokens to their centroids.
        decay: of the centroids' moving averages.
        ema_count_init: see `Centroids`.
        mask_routing: whether padding is left out of membership, loss and update; the port masks it
            inside the clusters only.

    Source: Roy et al., 2020, "Efficient Content-Based Sparse Attention with Routing
        Transformers", arXiv 2003.05997.
    """

    heads: int = 4
    local_heads: int | tuple[int, ...] = 2
    head_dim: int | None = None
    clusters: int | None = None
    window: int = 32
    local_window: int | None = None
    style: Style = "google"
    selection: Membership = "topk"
    shared_qk: bool = True
    relative: bool = True
    max_relative: int = 513
    memory_slots: int = 0
    embedding_dim: int | None = None
    hidden: int | None = None
    gated: bool = True
    first_routing: int = 0
    commitment: float = 1e-4
    decay: float = 0.999
    ema_count_init: float = 0.0
    mask_routing: bool = True

    def __post_init__(self):
        """Refuses sizes that cannot be built."""
        super().__post_init__()
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by {self.heads} heads")
        if isinstance(self.local_heads, tuple) and len(self.local_heads) != self.depth:
            raise ValueError(f"local_heads {self.local_heads} given for {self.depth} blocks")
        if not all(0 <= self.local(index) <= self.heads for index in range(self.depth)):
            raise ValueError(f"local_heads must be in [0, {self.heads}], got {self.local_heads}")
        for name, allowed in (
            ("style", ("google", "lucidrains")), ("selection", ("topk", "causal")),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.memory_slots and self.selection == "causal":
            raise ValueError("memory_slots belong to clusters of selection 'topk', not 'causal'")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")

    @property
    def features_per_head(self) -> int:
        """The features of a head."""
        return self.head_dim or self.dim // self.heads

    @property
    def limit(self) -> int | None:
        """The port's rotary table ends with the context."""
        return self.context if self.style == "lucidrains" else None

    @property
    def exact_steps(self) -> bool:
        """Top-k membership looks at the whole text."""
        return self.selection == "causal" or all(
            self.local(index) == self.heads for index in range(self.depth)
        )

    def local(self, index: int) -> int:
        """How many heads of block `index` are local."""
        if index < self.first_routing:
            return self.heads
        return self.local_heads[index] if isinstance(self.local_heads, tuple) else self.local_heads

    def make_embedding(self) -> nn.Module:
        """Tokens, projected where the embedding is narrower."""
        narrow = self.embedding_dim or self.dim
        embedding = Embedding(self.vocab, narrow, dropout=self.dropout)
        return embedding if narrow == self.dim else ProjectedEmbedding(embedding, narrow, self.dim)

    def make_block(self, index: int) -> nn.Module:
        """Local and routing heads, and a feed-forward."""
        hidden, is_google = self.hidden or 4 * self.dim, self.style == "google"
        if self.gated:
            activation = "gelu_tanh" if is_google else "gelu"
            feed_forward = GatedFeedForward(self.dim, hidden, activation, bias=not is_google)
        else:
            feed_forward = FeedForward(self.dim, hidden, bias=not is_google)
        return PreNormBlock(
            nn.LayerNorm(self.dim), MixedHeads(self, self.local(index)),
            nn.LayerNorm(self.dim), feed_forward, self.dropout,
        )  # fmt: skip

    def make_final_norm(self) -> nn.Module:
        """A norm, after the projection to the embedding's features (port) or before it."""
        narrow = self.embedding_dim or self.dim
        if narrow == self.dim:
            return nn.LayerNorm(self.dim)
        project = nn.Linear(self.dim, narrow)
        parts = [nn.LayerNorm(self.dim), project]
        if self.style == "lucidrains":
            parts = [project, nn.LayerNorm(narrow)]
        return nn.Sequential(*parts)

    def make_head(self) -> nn.Linear:
        """The output matrix, with bias."""
        return nn.Linear(self.embedding_dim or self.dim, self.vocab)


class ProjectedEmbedding(nn.Module):
    """A narrow embedding and a linear map to the model's features."""

    def __init__(self, embedding: Embedding, narrow: int, dim: int):
        super().__init__()
        self.embedding, self.project = embedding, nn.Linear(narrow, dim)

    def forward(self, ids: Tensor, position: int) -> Tensor:
        """The features of each token."""
        return self.project(self.embedding(ids, position))


class MixedHeads(nn.Module):
    """Local heads beside routing heads, local first, with one output projection.

    Args:
        config: the model's.
        local: how many of its heads are local here.
    """

    def __init__(self, config: RoutingConfig, local: int):
        super().__init__()
        d, self.style = config.features_per_head, config.style
        self.head_dim, routed = d, config.heads - local
        self.is_shared = config.shared_qk
        is_google = config.style == "google"
        if local:
            self.local_qkv = nn.Linear(config.dim, 3 * local * d, bias=not is_google)
            window = config.local_window or config.window
            farthest = min(2 * window, config.max_relative) if is_google else None
            self.local = LocalHeads(d, window, farthest, config.dropout)
        if routed:
            maps = 2 if config.shared_qk else 3
            self.query, self.value = (nn.Linear(config.dim, routed * d, bias=False) for _ in "qv")
            if maps == 3:
                self.key = nn.Linear(config.dim, routed * d, bias=False)
            self.routed = RoutedHeads(config, routed)
        self.output = nn.Linear(config.heads * d, config.dim, bias=False)

    def forward(self, x: Tensor, state=None, valid: Tensor | None = None):
        """The mixed tokens (batch, tokens, dim), and the state of both kinds of heads."""
        local_state, routed_state = state or (None, None)
        out = []
        if hasattr(self, "local"):
            q, k, v = split_heads(self.local_qkv(x), self.head_dim).chunk(3, 1)
            y, local_state = self.local(q, k, v, local_state, valid)
            out.append(y)
        if hasattr(self, "routed"):
            q = split_heads(self.query(x), self.head_dim)
            k = None if self.is_shared else split_heads(self.key(x), self.head_dim)
            v = split_heads(self.value(x), self.head_dim)
            y, routed_state = self.routed(q, k, v, routed_state, valid)
            out.append(y)
        return self.output(torch.cat(out, 2).flatten(2)), (local_state, routed_state)


class RoutedState(NamedTuple):
    """What causal routing keeps: keys, values and the cluster of every token."""

    k: Growing
    v: Growing
    cluster: Tensor


class RoutedHeads(AttentionLayer):
    """Attention among the tokens of the same cluster.

    Args:
        config: the model's.
        heads: routing heads.

    Source: Roy et al., 2020, arXiv 2003.05997, section 4.

    Example:
        >>> import torch
        >>> layer = RoutedHeads(RoutingConfig(dim=16, window=4, clusters=2), heads=2)
        >>> q, v = torch.randn(2, 1, 2, 8, 4).unbind(0)
        >>> layer(q, None, v)[0].shape
        torch.Size([1, 8, 2, 4])
    """

    def __init__(self, config: RoutingConfig, heads: int):
        super().__init__()
        d = config.features_per_head
        clusters = config.clusters or max(config.context // config.window, 1)
        self.window, self.style = config.window, config.style
        self.selection: Membership = config.selection
        self.dropout, self.causal = config.dropout, True
        self.centroids = Centroids(
            heads, clusters, d, style=config.style, decay=config.decay,
            commitment=config.commitment, ema_count_init=config.ema_count_init,
            masked=config.mask_routing,
        )  # fmt: skip
        is_google = config.style == "google"
        self.eps = 1e-2 if is_google else 1e-5  # of the mean over the clusters of a token
        has_relative = config.relative and is_google
        farthest = min(config.window, config.max_relative)
        self.relative = RelativeTerms(d, farthest) if has_relative else None
        # Without slots there is no gradient, for which several processes would wait.
        shape, learns = (heads, clusters, config.memory_slots, d), config.memory_slots > 0
        self.slots_k, self.slots_v = (
            nn.Parameter(torch.randn(shape), requires_grad=learns) for _ in range(2)
        )

    def forward(
        self,
        q: Float[Tensor, "batch heads tokens dim"],
        k: Float[Tensor, "batch heads tokens dim"] | None,
        v: Float[Tensor, "batch heads tokens dim"],
        state: RoutedState | None = None,
        valid: Bool[Tensor, "batch tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens heads dim"], RoutedState | None]:
        """The heads' outputs, and the state where membership is causal.

        Args:
            q: queries; `k` None makes them serve as keys.
            k: keys.
            v: values.
            state: of the tokens before.
            valid: False at padding.
        """
        is_shared = k is None
        if self.style == "lucidrains":
            start = 0 if state is None else state.k.x.shape[2]
            positions = torch.arange(start, start + q.shape[2], device=q.device)
            q, v = (rotate(x, positions, interleaved=True) for x in (q, v))
            k = None if k is None else rotate(k, positions, interleaved=True)
        return self.route(q, k, v, is_shared, state, valid)

    def route(self, q, k, v, is_shared: bool, state=None, valid=None):
        """`forward` without positions."""
        similarity = self.centroids(q, k, valid).to(torch.float32)
        if self.style == "google":
            normed = F.layer_norm(q, q.shape[-1:], eps=1e-6)
            k = normed if k is None else F.layer_norm(k, k.shape[-1:], eps=1e-6)
            q, scale = normed, 1.0
        else:
            k = F.normalize(q, dim=-1) if k is None else k
            scale = q.shape[-1] ** -0.5
        if self.selection == "causal":
            return self._causal(q, k, v, similarity, scale, is_shared, state)
        q_like, k_like = similarity, similarity
        if not is_shared:
            q_like, k_like = similarity.split(q.shape[2], 2)
        return self._topk(q, k, v, q_like, k_like, scale, is_shared, valid), None

    def members(self, similarity: Tensor, valid: Tensor | None) -> Tensor:
        """The positions of each cluster's nearest tokens, ascending: (batch, heads, clusters, w).

        Of equals the earlier one is taken, on every device.
        """
        if valid is not None and self.centroids.masked:
            similarity = similarity.masked_fill(~valid[:, None, :, None], -torch.inf)
        nearest = similarity.transpose(-1, -2)
        return top_positions(nearest, min(self.window, nearest.shape[-1]), ascending=True)

    def _topk(self, q, k, v, q_like, k_like, scale, is_shared: bool, valid) -> Tensor:
        members = self.members(q_like, valid)
        key_members = members if is_shared else self.members(k_like, valid)
        if self.relative is not None:
            return self._related(self.relative, q, k, v, members, key_members, scale, valid)
        slots = (self.slots_k, self.slots_v) if self.slots_k.shape[2] else (None, None)
        alone = is_shared and self.style == "lucidrains"
        bias = None
        if valid is not None:  # padding sees the memory, and itself where there is nothing else
            known = valid[:, None, None].expand(*members.shape[:3], -1)
            seen = known.gather(3, members)[..., None] & known.gather(3, key_members)[..., None, :]
            if alone:
                seen = seen | (members[..., None] == key_members[..., None, :])
            bias = torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, -torch.inf)
            bias = F.pad(bias, (self.slots_k.shape[2], 0))
        return self.attend_clusters(
            q, k, v, members, mean_eps=self.eps, memory_v=slots[1], dropout=self.dropout,
            key_members=key_members, causal=self.causal, scale=scale,
            memory_k=slots[0], self_bias=_ALONE if alone else 0.0, bias=bias,
        )  # fmt: skip

    def _related(
        self, relative: RelativeTerms, q, k, v, members, key_members, scale, valid
    ) -> Tensor:
        """Clusters with learned positions, which need the weights of every pair of ranks."""
        heads, tokens = q.shape[1:3]
        cq, ck, cv = _taken(q, members), _taken(k, key_members), _taken(v, key_members)
        here, there = members.flatten(1, 2)[..., None], key_members.flatten(1, 2)[:, :, None]
        mask = here >= there if self.causal else torch.ones_like(here >= there)
        if valid is not None:
            known = valid[:, None].expand(-1, here.shape[1], -1)
            mask = mask & known.gather(2, here[..., 0])[..., None]
            mask = mask & known.gather(2, there[:, :, 0])[:, :, None]
        rank = torch.arange(members.shape[-1], device=q.device)
        distance = rank[:, None] - rank
        terms = relative.bias(scale * cq, distance)
        out = attend_relative(self, cq, ck, cv, terms, mask, distance, relative, scale)
        out = out.transpose(1, 2).unflatten(1, (heads, -1))
        return scatter_mean(out, members, tokens, self.eps).transpose(1, 2)

    def _causal(self, q, k, v, similarity, scale, is_shared: bool, state):
        """Each token with the last members of its nearest cluster up to itself."""
        new = q.shape[2]
        cluster = similarity.argmax(-1)
        if is_shared:
            mine = cluster
        else:
            mine, cluster = cluster.split(new, 2)
        if state is None:
            state = RoutedState(Growing(k), Growing(v), cluster)
        else:
            everyone = torch.cat((state.cluster, cluster), 2)
            state = RoutedState(state.k.extend(k), state.v.extend(v), everyone)
        everyone = state.cluster
        tokens = everyone.shape[2]
        # How many members each cluster has up to each token: ranks are differences of these.
        counts = F.one_hot(everyone, self.centroids.means.shape[1]).cumsum(2)
        upto = counts[:, :, tokens - new :].gather(3, mine[..., None])
        rank = counts.gather(3, everyone[..., None]).transpose(2, 3)
        distance = upto - rank
        place = torch.arange(tokens, device=q.device)
        mask = (mine[..., None] == everyone[:, :, None]) & (distance < self.window)
        mask = mask & (place <= place[tokens - new :, None])
        bias = None
        if self.style == "lucidrains" and is_shared:
            bias = _ALONE * (place == place[tokens - new :, None])
        if self.relative is None:
            heads = self.attend(q, state.k.x, state.v.x, bias=bias, mask=mask, scale=scale)
        else:
            terms = self.relative.bias(scale * q, distance)
            heads = attend_relative(
                self, q, state.k.x, state.v.x, terms, mask, distance, self.relative, scale
            )
        return heads / (1 + self.eps), state


def _taken(x: Tensor, at: Tensor) -> Tensor:
    """(batch, heads, tokens, dim) at (batch, heads, clusters, w), heads and clusters in one."""
    index = at.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-1])
    return x.gather(2, index).unflatten(2, at.shape[2:]).flatten(1, 2)
