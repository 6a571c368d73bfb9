"""WKV here against the token loop that transformers runs on a CPU, T 1024, C 768.

python -m benchmarks.wkv [threads]
"""

import sys

import torch

from core_attn import why, wkv
from core_attn.testing.timing import medians, processor, table


def peers_loop(k, v, w, u):
    """RWKV's linear attention as transformers computes it on a CPU."""
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    return rwkv_linear_attention_cpu(w, u, k, v)[0]


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    rows = []
    for batch, training in ((1, False), (12, False), (1, True)):
        k, v = torch.randn(2, batch, 1024, 768).unbind(0)
        w, u = torch.randn(768), torch.randn(768)
        leaves = [x.requires_grad_(training) for x in (k, v, w, u)]

        def ours(leaves=leaves, training=training):
            k, v, w, u = leaves
            out, _ = wkv(k, v, log_decay=-w.exp(), bonus=u)
            if training:
                torch.autograd.grad(out.sum(), leaves)
            return out

        def theirs(leaves=leaves, training=training):
            k, v, w, u = leaves
            out = peers_loop(k, v, w, u)
            if training:
                torch.autograd.grad(out.sum(), leaves)
            return out

        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
        mine, peers = medians([ours, theirs], 20 if training else 6)
        backend = why(ours)[0].backend
        name = f"batch {batch}" + (", with gradients" if training else "")
        rows.append(
            [name, backend, f"{1e3 * mine:.2f}", f"{1e3 * peers:.1f}", f"{peers / mine:.1f}"]
        )
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    print(table(("T 1024, C 768", "backend", "ours ms", "transformers ms", "ratio"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
