"""DHA: query heads that share fewer key heads and value heads, grouped apart in every layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .transformer import SelfAttention, TransformerConfig

HeadMap = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DHAConfig(TransformerConfig):
    """A Transformer whose layers have their own maps from query heads to key and value heads.

    Attributes:
        k_maps: for every layer, the key head of each query head; None for one each.
        v_maps: the value heads, likewise.

    Source: Chen et al., 2024, "DHA: Learning Decoupled-Head Attention from Transformer
        Checkpoints via Adaptive Heads Fusion", arXiv 2406.06567.
    """

    k_maps: tuple[HeadMap, ...] | None = None
    v_maps: tuple[HeadMap, ...] | None = None

    def __post_init__(self):
        """Refuses maps that leave a stored head unread."""
        super().__post_init__()
        for kind, maps in (("key", self.k_maps), ("value", self.v_maps)):
            if maps is None:
                continue
            if len(maps) != self.depth:
                raise ValueError(f"{kind} maps of {len(maps)} layers given for {self.depth}")
            for layer, one in enumerate(maps):
                check_map(one, self.heads, f"{kind} group", f" of layer {layer}")

    def head_maps(self, index: int) -> tuple[Sequence[int], Sequence[int]]:
        """The maps of block `index`."""
        k_map, v_map = super().head_maps(index)
        return (
            k_map if self.k_maps is None else self.k_maps[index],
            v_map if self.v_maps is None else self.v_maps[index],
        )

    def cached_heads(self) -> int:
        """Key heads and value heads of all layers together: what a cache stores per token."""
        maps = [self.head_maps(index) for index in range(self.depth)]
        return sum(max(k_map) + max(v_map) + 2 for k_map, v_map in maps)


def check_map(head_map: Sequence[int], heads: int, kind: str, where: str = "") -> None:
    """Requires a group for every query head, and a query head for every group.

    Raises:
        ValueError: the map does neither.
    """
    if len(head_map) != heads:
        raise ValueError(f"{kind} map{where} has {len(head_map)} entries for {heads} query heads")
    if min(head_map) < 0:
        raise ValueError(f"{kind} {min(head_map)}{where} is negative")
    for group in range(max(head_map) + 1):
        if group not in head_map:
            raise ValueError(f"{kind} {group}{where} has no query head")


class HeadFusion(nn.Module):
    """Heads of one kind and layer, each a learned combination of those of its group.

    Args:
        heads: (heads, head_dim, features), the weights; biases count as one more feature.
        groups: the group of each head.

    Source: Chen et al., 2024, arXiv 2406.06567, section 3; normalization of the loss is ours.

    Example:
        >>> import torch
        >>> fusion = HeadFusion(torch.randn(4, 3, 8), [0, 0, 1, 0])
        >>> fusion.fused().equal(fusion.weight), fusion.shared().shape
        (True, torch.Size([2, 3, 8]))
    """

    membership: Tensor

    def __init__(self, heads: Float[Tensor, "heads head_dim features"], groups: Sequence[int]):
        super().__init__()
        check_map(groups, len(heads), "group")
        self.weight = nn.Parameter(heads.detach().clone())
        self.coefficients = nn.Parameter(torch.eye(len(heads), dtype=heads.dtype))
        one_hot = F.one_hot(torch.tensor(list(groups))).to(heads.dtype)
        self.register_buffer("membership", one_hot)

    def fused(self) -> Float[Tensor, "heads head_dim features"]:
        """Each head's combination."""
        mixing = self.coefficients * (self.membership @ self.membership.T)
        return torch.einsum("ij,jdf->idf", mixing, self.weight)

    def averaged(self) -> Float[Tensor, "heads head_dim features"]:
        """For each head, the shared head of its group."""
        return torch.einsum("hg,gdf->hdf", self.membership, self.shared())

    def shared(self) -> Float[Tensor, "groups head_dim features"]:
        """The mean of each group's fused heads."""
        mean = self.membership / self.membership.sum(0)
        return torch.einsum("hg,hdf->gdf", mean, self.fused())

    def loss(self) -> Float[Tensor, ""]:
        """Mean over the heads of their squared distance to their group's mean, in float32."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        return (self.fused().to(wide) - self.averaged().to(wide)).square().sum((1, 2)).mean()


class FusingAttention(SelfAttention):
    """Self attention in the fusion stage: its key and value heads are being fused.

    Args:
        attention: whose weights it takes over.
        k_groups: the group of each of its key heads.
        v_groups: the group of each of its value heads.
        shared: whether queries read the groups' shared heads rather than the fused ones.
    """

    def __init__(
        self,
        attention: SelfAttention,
        k_groups: Sequence[int],
        v_groups: Sequence[int],
        shared: bool = False,
    ):
        super().__init__(
            attention.qkv.in_features, attention.head_dim, attention.k_map, attention.v_map,
            rope=attention.rope, qkv_bias=attention.qkv.bias is not None,
            out_bias=attention.out.bias is not None, dropout=attention.dropout,
            causal=attention.causal,
        )  # fmt: skip
        self.out = attention.out
        q, k, v = stored_heads(attention)
        del self.qkv
        self.q = nn.Parameter(q.detach().clone())
        self.fuse_k, self.fuse_v = HeadFusion(k, k_groups), HeadFusion(v, v_groups)
        self.has_bias = attention.qkv.bias is not None
        self.shared = shared

    def project(self, x: Tensor) -> Tensor:
        """Queries, fused keys and fused values of the tokens, one beside the other."""
        k, v = (
            fusion.averaged() if self.shared else fusion.fused()
            for fusion in (self.fuse_k, self.fuse_v)
        )
        heads = torch.cat((self.q, k, v)).flatten(0, 1)
        if self.has_bias:
            return F.linear(x, heads[:, :-1], heads[:, -1])
        return F.linear(x, heads)

    def loss(self) -> Tensor:
        """The fusion losses of keys and values together."""
        return self.fuse_k.loss() + self.fuse_v.loss()

    def merged(self) -> SelfAttention:
        """Attention with one shared head per group in the place of its fused ones."""
        k_map = [int(self.fuse_k.membership[head].argmax()) for head in self.k_map]
        v_map = [int(self.fuse_v.membership[head].argmax()) for head in self.v_map]
        merged = SelfAttention(
            self.out.out_features, self.head_dim, k_map, v_map, rope=self.rope,
            qkv_bias=self.has_bias, out_bias=self.out.bias is not None, dropout=self.dropout,
            causal=self.causal,
        )  # fmt: skip
        merged.out = self.out
        heads = torch.cat((self.q, self.fuse_k.shared(), self.fuse_v.shared())).flatten(0, 1)
        with torch.no_grad():
            if self.has_bias:
                merged.qkv.bias.copy_(heads[:, -1])
                heads = heads[:, :-1]
            merged.qkv.weight.copy_(heads)
        return merged


def stored_heads(attention: SelfAttention) -> list[Tensor]:
    """The query, key and value heads' weights (heads, head_dim, features), biases as a last one."""
    weight = attention.qkv.weight
    if attention.qkv.bias is not None:
        weight = torch.cat((weight, attention.qkv.bias[:, None]), 1)
    heads = weight.unflatten(0, (-1, attention.head_dim))
    return list(heads.split(attention.sizes))
