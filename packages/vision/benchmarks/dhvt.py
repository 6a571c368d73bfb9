"""python -m benchmarks.dhvt [--threads N] [--seconds S]: DHVT here beside the official form.

The official form has the same weights, writes the attention matrix out and lays the patches out
as maps of channels.
"""

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from torch.nn import functional as F

from attn_vision import create
from attn_vision.models.daff import DynamicAggregationFeedForward
from attn_vision.models.dhvt import DHVT
from attn_vision.models.head_tokens import HeadInteractedAttention
from attn_vision.models.tokens import TokenState
from benchmarks.ratios import compare, inference


class OfficialAttention(HeadInteractedAttention):
    """With the attention matrix."""

    def forward(self, state: TokenState) -> Tensor:
        x = state.tokens
        q, k, v = self.project(torch.cat([x, self.head_tokens(x)], 1))
        weights = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1)
        y = self.proj((weights @ v).transpose(1, 2).flatten(2))
        count = x.shape[1]
        first = y[:, :1] + y[:, count:].mean(1, keepdim=True)
        return torch.cat([first, y[:, 1:count]], 1)


class OfficialFeedForward(DynamicAggregationFeedForward):
    """On maps of channels, norms apart."""

    def forward(self, state: TokenState) -> Tensor:
        x = state.patches.transpose(1, 2).reshape(len(state.tokens), -1, *state.grid)  # type: ignore
        u = F.gelu(self.bn1(self.conv1(x)))
        v = u + F.gelu(self.bn2(self.conv2(u)))
        w = self.bn3(self.conv3(v))
        scale = self.excitation(F.gelu(self.compress(w.flatten(2).mean(2))))
        patches = w.flatten(2).transpose(1, 2)
        return torch.cat([state.tokens[:, :1] * scale[:, None], patches], 1)


class OfficialDHVT(DHVT):
    """The model of these parts."""

    def make_mixer(self, index: int) -> nn.Module:
        c = self.config
        return OfficialAttention(c.dim, c.heads, qkv_bias=c.qkv_bias)

    def make_mlp(self, index: int) -> nn.Module:
        c = self.config
        return OfficialFeedForward(c.dim, int(c.dim * c.mlp_ratio))


def main(threads: int = 1, seconds: float = 10.0) -> None:
    """One forward pass without gradients."""
    cases = {}
    for name, batch in (("dhvt_tiny", 16), ("dhvt_small_imagenet", 2)):
        ours = create(name).eval()
        official = OfficialDHVT(ours.config).eval()  # type: ignore[arg-type]
        official.load_state_dict(ours.state_dict())
        images = ours.example_inputs(batch)[0]
        cases[f"{name}, batch {batch}"] = (inference(ours, images), inference(official, images))
    compare(cases, threads=threads, seconds=seconds)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
