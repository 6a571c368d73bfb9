"""One Glauber sweep: plain loops, dense rows, factors in numpy and in the kernel, with replicas."""

import argparse
import math
import random

import numpy as np

from attn_theory.multitask_hebbian import Network, draw_patterns, glauber
from core_attn.testing.timing import medians, processor, table

BETA = 20.0
SWEEPS = 20  # of a call of ours, which checks and copies what it is given


def plain_loop(n: int, k: int, share: float):
    """Lists and two nested loops, over a share of the spins."""
    rng = np.random.default_rng(0)
    couplings = Network.storing(draw_patterns(rng, n, k, 0.3)).couplings().tolist()
    spins = [1.0 if x else -1.0 for x in rng.integers(0, 2, n)]

    def run():
        for i in random.sample(range(n), int(share * n)):
            field, row = 0.0, couplings[i]
            for j in range(n):
                field += row[j] * spins[j]
            spins[i] = 1.0 if random.random() < 0.5 * (1 + math.tanh(BETA * field)) else -1.0

    return run


def dense_rows(n: int, k: int):
    rng = np.random.default_rng(0)
    couplings = Network.storing(draw_patterns(rng, n, k, 0.3)).couplings()
    spins = rng.choice((-1.0, 1.0), n)

    def run():
        for i in rng.permutation(n):
            chance = 0.5 * (1 + np.tanh(BETA * (couplings[i] @ spins)))
            spins[i] = 1.0 if rng.random() < chance else -1.0

    return run


def factors_in_numpy(n: int, k: int, replicas: int):
    """Spin by spin in numpy, all replicas at once."""
    rng = np.random.default_rng(0)
    a = draw_patterns(rng, n, k, 0.3, replicas)
    spins = rng.choice((-1.0, 1.0), (n, replicas))
    own, overlap = np.square(a).sum(-1) / n, np.einsum("nrf,nr->rf", a, spins) / n

    def run():
        thresholds = np.arctanh(rng.uniform(-1, 1, spins.shape)) / BETA
        for i in rng.permutation(n):
            field = np.einsum("rf,rf->r", a[i], overlap) - own[i] * spins[i]
            change = np.where(field > thresholds[i], 1.0, -1.0) - spins[i]
            if change.any():
                overlap[:] += a[i] * (change / n)[:, None]
                spins[i] += change

    return run


def ours(n: int, k: int, replicas: int):
    rng = np.random.default_rng(0)
    network = Network.storing(draw_patterns(rng, n, k, 0.3, replicas))
    spins = rng.choice((-1.0, 1.0), (n, replicas))
    return lambda: glauber(rng, network, spins, BETA, SWEEPS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    n, k, share = options.n, options.k, 0.05
    runs = {
        "plain loop": (plain_loop(n, k, share), share),
        "dense rows": (dense_rows(n, k), 1),
        "factors in numpy, 16 replicas": (factors_in_numpy(n, k, 16), 16),
        "factors in numpy, 64 replicas": (factors_in_numpy(n, k, 64), 64),
        "kernel, 1 replica": (ours(n, k, 1), 1 * SWEEPS),
        "kernel, 16 replicas": (ours(n, k, 16), 16 * SWEEPS),
        "kernel, 64 replicas": (ours(n, k, 64), 64 * SWEEPS),
    }
    taken = medians([run for run, _ in runs.values()], options.seconds)
    each = [t / count for t, (_, count) in zip(taken, runs.values(), strict=True)]
    print(f"{processor()}; one sweep per replica, N={n}, K={k}\n")
    rows = [
        (name, f"{1e3 * t:.3f}", f"{1 / t:.0f}", f"{each[0] / t:.0f}", f"{each[2] / t:.1f}")
        for name, t in zip(runs, each, strict=True)
    ]
    heads = ("", "milliseconds", "sweeps a second", "plain loop / this", "numpy, 16 / this")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
