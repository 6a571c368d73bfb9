"""The delta rule: recurrence, chunks, and flash-linear-attention's references where installed."""

import argparse

import torch

from core_attn import delta_rule, use_backend
from core_attn.testing.timing import medians, processor, table


def rivals(batch: int, heads: int, tokens: int, dim: int):
    k = torch.nn.functional.normalize(torch.randn(batch, heads, tokens, dim), dim=-1)
    q, v = torch.randn(2, batch, heads, tokens, dim).unbind(0)
    beta = torch.rand(batch, heads, tokens)

    def ours(backend: str):
        def run():
            with use_backend(backend):
                return delta_rule(q, k, v, beta=beta)

        return run

    out = {"recurrence": ours("reference"), "chunks": ours("chunked")}
    try:
        from fla.ops.delta_rule.naive import delta_rule_chunkwise, delta_rule_recurrence
    except ImportError:
        return out
    out["fla recurrence"] = lambda: delta_rule_recurrence(q, k, v, beta)
    out["fla chunkwise"] = lambda: delta_rule_chunkwise(q, k, v, beta)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0, help="per size")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} thread(s), torch {torch.__version__}\n")
    rows, names = [], None
    for size in ((2, 4, 512, 64), (8, 4, 256, 32), (1, 8, 1024, 64)):
        candidates = rivals(*size)
        names = list(candidates)
        with torch.no_grad():
            times = medians(list(candidates.values()), options.seconds)
        cells = [f"{1e3 * t:.1f}" for t in times]
        rows.append(("B{} H{} T{} d{}".format(*size), *cells, f"{times[0] / times[1]:.1f}"))
    print("forward, milliseconds")
    print(table(("", *names, "recurrence / chunks"), rows))


if __name__ == "__main__":
    main()
