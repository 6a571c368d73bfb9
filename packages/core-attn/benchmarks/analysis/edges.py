"""`python -m benchmarks.analysis.edges`: edge scores at the size of GPT-2 small, 144 heads."""

import time

import torch

from core_attn.analysis.circuits import distinct_codes, edge_circuit, edge_scores

from .memory import peak_of


def main() -> None:
    """Prints time and memory for 250 positive and as many negative prompts, 200 features."""
    codes = torch.randint(200, (500, 144), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    distinct_codes(codes)
    node = time.perf_counter() - start
    took = []

    def edges() -> None:
        start = time.perf_counter()
        edge_circuit(edge_scores(codes, 200))
        took.append(time.perf_counter() - start)

    peak = peak_of(edges)
    print(f"500 prompts, 144 heads, 200 features: nodes {node:.2f} s, edges {took[0]:.2f} s, "
          f"{peak:.0f} MiB at the peak")  # fmt: skip


if __name__ == "__main__":
    main()
