"""One Glauber sweep: plain loops, dense rows, and factors with replicas."""

import argparse
import math
import random

import numpy as np

from attn_theory.multitask_hebbian import Network, draw_patterns, glauber
from core_attn.testing.timing import medians, processor, table

N, K, BETA = 1500, 3, 20.0


def plain_loop(share: float):
    """Lists and two nested loops, over a share of the spins."""
    rng = np.random.default_rng(0)
    couplings = Network.storing(draw_patterns(rng, N, K, 0.3)).couplings().tolist()
    spins = [1.0 if x else -1.0 for x in rng.integers(0, 2, N)]

    def run():
        for i in random.sample(range(N), int(share * N)):
            field, row = 0.0, couplings[i]
            for j in range(N):
                field += row[j] * spins[j]
            spins[i] = 1.0 if random.random() < 0.5 * (1 + math.tanh(BETA * field)) else -1.0

    return run


def dense_rows():
    rng = np.random.default_rng(0)
    couplings = Network.storing(draw_patterns(rng, N, K, 0.3)).couplings()
    spins = rng.choice((-1.0, 1.0), N)

    def run():
        for i in rng.permutation(N):
            chance = 0.5 * (1 + np.tanh(BETA * (couplings[i] @ spins)))
            spins[i] = 1.0 if rng.random() < chance else -1.0

    return run


def factors(replicas: int):
    rng = np.random.default_rng(0)
    network = Network.storing(draw_patterns(rng, N, K, 0.3, replicas))
    spins = rng.choice((-1.0, 1.0), (N, replicas))
    return lambda: glauber(rng, network, spins, BETA, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    share = 0.1
    loop, dense, *many = medians(
        [plain_loop(share), dense_rows(), *(factors(r) for r in (1, 64, 256))], seconds
    )
    each = (loop / share, dense, many[0], many[1] / 64, many[2] / 256)
    names = ("plain loop", "dense rows", "factors", "factors, 64 replicas", "factors, 256 replicas")
    print(f"{processor()}; one sweep per replica, N={N}, K={K}\n")
    rows = [
        (name, f"{1e3 * t:.3f}", f"{each[0] / t:.0f}", f"{each[1] / t:.1f}")
        for name, t in zip(names, each, strict=True)
    ]
    print(table(("", "milliseconds", "plain loop / this", "dense rows / this"), rows))


if __name__ == "__main__":
    main()
