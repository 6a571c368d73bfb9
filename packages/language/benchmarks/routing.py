"""Routed attention against the PyTorch port and against dense attention, and its growth.

python -m benchmarks.routing [threads]
"""

import math
import sys

import torch
from torch.nn import functional as F

from attn_language.models.routing import RoutedHeads, RoutingConfig
from core_attn.testing.timing import medians, processor, table

HEADS, DIM = 4, 64


def routed(window: int, style: str = "lucidrains") -> RoutedHeads:
    """As many clusters as a cluster has tokens, their centroids in place."""
    config = RoutingConfig(
        dim=HEADS * DIM, heads=HEADS, clusters=window, window=window, style=style, relative=False,
        context=window * window,
    )  # fmt: skip
    layer = RoutedHeads(config, HEADS).eval()
    torch.manual_seed(0)
    layer.centroids.means.copy_(F.normalize(torch.randn_like(layer.centroids.means), dim=-1))
    layer.centroids.initialized.fill_(True)
    return layer


def port(layer: RoutedHeads):
    """The port's layer with the same centroids."""
    from routing_transformer.routing_transformer import KmeansAttention

    clusters = layer.centroids.means.shape[1]
    theirs = KmeansAttention(clusters, layer.window, HEADS, DIM, causal=True, shared_qk=True).eval()
    theirs.kmeans.means.data.copy_(layer.centroids.means)
    theirs.kmeans.initted.fill_(True)
    return theirs


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    window = 64
    ours = routed(window)
    theirs = port(ours)
    q, v = torch.randn(2, 1, HEADS, window * window, DIM).unbind(0)
    rows = []
    for training in (False, True):
        leaves = [x.clone().requires_grad_(training) for x in (q, v)]

        def mine(training=training, leaves=leaves):
            with torch.set_grad_enabled(training):
                out = ours.route(leaves[0], None, leaves[1], True)[0].transpose(1, 2)
            return torch.autograd.grad(out.sum(), leaves) if training else out

        def peers(training=training, leaves=leaves):
            with torch.set_grad_enabled(training):
                out = theirs(leaves[0], leaves[0], leaves[1])[0]
            return torch.autograd.grad(out.sum(), leaves) if training else out

        def dense(training=training, leaves=leaves):
            with torch.set_grad_enabled(training):
                out = F.scaled_dot_product_attention(
                    leaves[0], leaves[0], leaves[1], is_causal=True
                )
            return torch.autograd.grad(out.sum(), leaves) if training else out

        if not training:
            torch.testing.assert_close(mine(), peers(), rtol=1e-3, atol=1e-4)
        a, b, c = medians([mine, peers, dense], 12)
        rows.append([
            "with gradients" if training else "forward", f"{1e3 * a:.1f}", f"{1e3 * b:.1f}",
            f"{b / a:.1f}", f"{1e3 * c:.1f}",
        ])  # fmt: skip
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    header = (f"T {window**2}, k = w = {window}", "ours ms", "port ms", "ratio", "dense SDPA ms")
    print(table(header, rows))
    rows, logs = [], []
    with torch.no_grad():
        for width in (16, 32, 45, 64, 90):
            layer, tokens = routed(width), width * width
            q, v = torch.randn(2, 1, HEADS, tokens, DIM).unbind(0)
            a, c = medians([
                lambda q=q, v=v, layer=layer: layer.route(q, None, v, True),
                lambda q=q, v=v: F.scaled_dot_product_attention(q, q, v, is_causal=True),
            ], 4)  # fmt: skip
            logs.append((math.log(tokens), math.log(a)))
            rows.append([str(tokens), f"{1e3 * a:.2f}", f"{1e3 * c:.2f}", f"{c / a:.2f}"])
    print(table(("tokens, k = w = sqrt(T)", "ours ms", "dense SDPA ms", "ratio"), rows))
    (x0, y0), (x1, y1) = logs[1], logs[-1]
    print(f"growth exponent from {rows[1][0]} tokens on: {(y1 - y0) / (x1 - x0):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
