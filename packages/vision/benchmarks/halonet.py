"""python -m benchmarks.halonet [--threads N] [--seconds S]: the halo layer and its peers."""

import torch
from halonet_pytorch import HaloAttention as Peer
from jsonargparse import auto_cli
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

from attn_vision.official import halonet
from benchmarks.ratios import compare, inference


def training(layer: nn.Module, x: Tensor):
    """A forward and a backward pass."""
    x = x.clone().requires_grad_()
    return lambda: layer(x).square().mean().backward()


def main(threads: int = 1, seconds: float = 10.0) -> None:
    """Same weights, a 64x64 map of 64 channels, 4 heads, block 8, halo 3, batch 2."""
    timm_options = {"dim": 64, "num_heads": 4, "block_size": 8, "halo_size": 3}
    peer_options = {"dim": 64, "heads": 4, "dim_head": 16, "block_size": 8, "halo_size": 3}
    cases, x = {}, torch.randn(2, 64, 64, 64)
    for name, theirs, options in (
        ("timm", HaloAttn(**timm_options), timm_options),
        ("halonet-pytorch", Peer(**peer_options), peer_options),
    ):
        ours = halonet.layer_from(options, theirs.state_dict())
        cases[f"{name}, inference"] = (inference(ours, x), inference(theirs, x))
        cases[f"{name}, training"] = (training(ours, x), training(theirs, x))
    compare(cases, threads=threads, seconds=seconds)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
