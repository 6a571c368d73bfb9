"""Grassmann mixing: one plane per token against one per offset, and its growth with the length.

python -m benchmarks.grassmann [threads]
"""

import sys

import torch
from torch import nn

from attn_language.models.grassmann import GrassmannMixing
from core_attn.testing.timing import medians, processor, table

OFFSETS = (1, 2, 4, 8, 12, 16)


class Naive(nn.Module):
    """The equations as they stand: planes of all offsets, each projected, then the mean."""

    def __init__(self, mixing: GrassmannMixing):
        super().__init__()
        self.mixing = mixing

    def forward(self, h):
        m = self.mixing
        z, tokens = m.reduce(h), h.shape[1]
        r = z.shape[-1]
        i, j = torch.triu_indices(r, r, 1)
        total, count = 0, 0
        for d in m.offsets:
            v = torch.cat((torch.zeros_like(z[:, :d]), z[:, : tokens - d]), 1)
            p = z[..., i] * v[..., j] - z[..., j] * v[..., i]
            p = p / p.norm(dim=-1, keepdim=True).clamp(min=m.eps)
            exists = (torch.arange(tokens) >= d)[:, None]
            total = total + m.project(p) * exists
            count = count + exists
        g = total / count.clamp(min=1)
        alpha = m.gate(torch.cat((h, g), -1)).sigmoid()
        return alpha * h + (1 - alpha) * g


def run(module, h, training):
    def once():
        if training:
            module.zero_grad()
            y = module(h)
            (y[0] if isinstance(y, tuple) else y).square().mean().backward()
        else:
            with torch.no_grad():
                module(h)

    return once


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    mixing = GrassmannMixing(256, 32, OFFSETS)
    naive = Naive(mixing)
    h = torch.randn(8, 256, 256)
    torch.testing.assert_close(mixing(h)[0], naive(h), rtol=1e-4, atol=1e-4)
    rows = []
    for training in (False, True):
        mine, theirs = medians([run(mixing, h, training), run(naive, h, training)], 10)
        name = "with gradients" if training else "forward"
        rows.append([name, f"{1e3 * mine:.1f}", f"{1e3 * theirs:.1f}", f"{theirs / mine:.1f}"])
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    print(table(("batch 8, L 256, d 256, r 32", "ours ms", "naive ms", "ratio"), rows))
    kept = []
    for module in (mixing, naive):
        saved = 0

        def keep(x):
            nonlocal saved
            saved += x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            module(h)
        kept.append(saved)
    print(f"kept for the gradients: {kept[0] / 2**20:.1f} MiB against {kept[1] / 2**20:.1f} MiB")
    lengths, times = (256, 1024, 4096, 8192), []
    for length in lengths:
        times.append(medians([run(mixing, torch.randn(1, length, 256), False)], 2)[0])
    rows = [
        [str(n), f"{1e3 * t:.2f}", f"{1e6 * t / n:.2f}"]
        for n, t in zip(lengths, times, strict=True)
    ]
    print(table(("length", "ms", "us a token"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
