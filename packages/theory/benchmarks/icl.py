"""In-context regression: seed-steps per second, and the estimator figure's time per prompt.

The other side has the form of the authors' code: in training a fresh batch drawn array by array, a
layer that projects every token for every head, one seed; in the figure one prompt after the other
in numpy, one head after the other with scipy's softmax, ridge by an explicit inverse. A leaner loop
of our own stands beside it.
"""

import argparse

import numpy as np
import scipy.special
import torch
from torch import nn

from attn_theory.icl_linear import ICLConfig, LinearRegression, Recipe, train
from attn_theory.icl_linear.experiments.estimators import Estimators, measure
from core_attn.testing.timing import medians, processor, table

TASK = LinearRegression()
BATCH = 256
STEPS = 50


class Projected(nn.Module):
    """The layer as it is commonly written: every token projected for every head."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.width = heads, width
        self.q_proj = nn.Linear(width, heads * width, bias=False)
        self.k_proj = nn.Linear(width, heads * width, bias=False)
        self.v_proj = nn.Linear(width, heads * width, bias=False)
        self.o_proj = nn.Linear(heads * width, 1, bias=False)

    def forward(self, z, z_q):
        batch, length, _ = z.shape
        q = self.q_proj(z_q).view(batch, 1, self.heads, self.width).transpose(1, 2)
        k = self.k_proj(z).view(batch, length, self.heads, self.width).transpose(1, 2)
        v = self.v_proj(z).view(batch, length, self.heads, self.width).transpose(1, 2)
        pattern = (q @ k.transpose(-2, -1) / self.width**0.5).softmax(-1)
        return self.o_proj((pattern @ v).transpose(1, 2).reshape(batch, 1, -1))


def drawn_array_by_array():
    d, noise = TASK.d, TASK.noise**0.5
    x, x_q = torch.randn(BATCH, TASK.length, d), torch.randn(BATCH, 1, d)
    beta = torch.randn(BATCH, d, 1) / d**0.5
    y = torch.einsum("nld,ndo->nlo", x, beta)
    y += noise * torch.randn(BATCH, TASK.length, 1)
    y_q = torch.einsum("nld,ndo->nlo", x_q, beta)
    y_q += noise * torch.randn(BATCH, 1, 1)
    return torch.cat((x, y), 2), torch.cat((x_q, torch.zeros_like(y_q)), 2), y_q


def projected_steps(heads: int, steps: int):
    model = Projected(TASK.d + 1, heads)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.MSELoss()
    losses = []

    def run():
        for _ in range(steps):
            z, z_q, y_q = drawn_array_by_array()
            optimiser.zero_grad()
            loss = loss_of(model(z, z_q), y_q)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())

    return run


def trained_steps(heads: int, seeds: int, steps: int):
    """`train` itself: with its records, and the weights and the optimiser made anew."""
    recipe = Recipe(steps=steps - 1, batch=BATCH)
    return lambda: train(ICLConfig(TASK.d, heads=heads), TASK, recipe, seeds=seeds)


def authors_form(count: int, length: int):
    config, d = Estimators(), TASK.d

    def heads(x, y, x_q, omega, mu):
        guess = 0
        for h in range(len(omega)):
            guess += mu[h] * np.dot(y, scipy.special.softmax(omega[h] * x.T.dot(x_q)))
        return guess

    def run():
        pair, errors = np.array([1, -1]), [0.0] * 5
        eta = 2 * config.omega * config.mu
        for _ in range(count):
            beta = np.random.normal(0, 1 / np.sqrt(d), d)
            x = np.random.normal(0, 1, (d, length))
            y = np.dot(beta, x) + np.random.normal(0, np.sqrt(config.noise), length)
            x_q = np.random.normal(0, 1, d)
            y_q = np.dot(beta, x_q) + np.random.normal(0, np.sqrt(config.noise))
            mu = np.sqrt(d) / (1 + (1 + config.noise) * d / length * np.e)
            penalty = config.noise * d * np.eye(d)
            guesses = (
                heads(x, y, x_q, config.omega * pair, config.mu * pair),
                heads(x, y, x_q, 1 / np.sqrt(d) * np.ones(1), mu * np.ones(1)),
                eta / length * np.dot(y, x.T.dot(x_q)),
                eta / length * (np.dot(y, x.T.dot(x_q)) - y.sum() * x.mean(axis=1).dot(x_q)),
                np.dot(x_q, np.linalg.inv(np.dot(x, x.T) + penalty).dot(x).dot(y)),
            )
            for i, guess in enumerate(guesses):
                errors[i] += (guess - y_q) ** 2
        return errors

    return run


def leaner_loop(count: int, length: int):
    """Still one prompt at a time, but the scores once, a softmax of two lines, and a solve."""
    config, d, rng = Estimators(), TASK.d, np.random.default_rng(0)
    eta = 2 * config.omega * config.mu

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    def run():
        errors = np.zeros(5)
        for _ in range(count):
            x, x_q = rng.normal(size=(length, d)), rng.normal(size=d)
            beta = rng.normal(size=d) / np.sqrt(d)
            y = x @ beta + np.sqrt(config.noise) * rng.normal(size=length)
            y_q = x_q @ beta + np.sqrt(config.noise) * rng.normal()
            score = x @ x_q
            plus, minus = softmax(config.omega * score), softmax(-config.omega * score)
            guesses = (
                config.mu * (y @ plus) - config.mu * (y @ minus),
                1.6277 * (y @ softmax(0.4472 * score)),
                eta / length * (y @ score),
                eta / length * (y @ (score - score.mean())),
                np.linalg.solve(x.T @ x + config.noise * d * np.eye(d), x.T @ y) @ x_q,
            )
            errors += (np.array(guesses) - y_q) ** 2
        return errors

    return run


def experiment(count: int, length: int):
    """The experiment itself: the same five predictors, a sixth, the Bayes risk and the errors."""
    return lambda: measure(Estimators(prompts=count), length)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0, help="per comparison")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} thread(s), torch {torch.__version__}\n")
    rows = []
    for heads in (1, 2, 4, 8):
        ours = (trained_steps(heads, seeds, STEPS) for seeds in (4, 16))
        rivals = (projected_steps(heads, STEPS), *ours)
        plain, four, sixteen = (STEPS / t for t in medians(rivals, options.seconds))
        rates = (plain, 4 * four, 16 * sixteen)
        cells = [f"{rate:.0f}" for rate in rates] + [f"{r / rates[0]:.1f}" for r in rates[1:]]
        rows.append((f"H={heads}", *cells))
    print(f"training, batch {BATCH}, L={TASK.length}: seed-steps per second")
    header = ("", "projected", "4 seeds", "16 seeds", "ratio 4", "ratio 16")
    print(table(header, rows), end="\n\n")
    rows, sums = [], np.zeros(3)
    lengths = Estimators().lengths
    for length in lengths:
        counts = (200, 200, 2000)
        rivals = (authors_form(200, length), leaner_loop(200, length), experiment(2000, length))
        times = medians(rivals, options.seconds / 4)
        each = [1e6 * seconds / count for seconds, count in zip(times, counts, strict=True)]
        sums += each
        rows.append(row(f"L={length}", each))
    rows.append(row(f"all {len(lengths)}", sums / len(lengths)))
    print("estimator figure: microseconds per prompt")
    header = ("", "authors' form", "leaner loop", "batched", "authors' / ours", "leaner / ours")
    print(table(header, rows))


def row(name: str, each) -> tuple[str, ...]:
    authors, leaner, ours = each
    cells = (f"{value:.1f}" for value in (authors, leaner, ours, authors / ours, leaner / ours))
    return (name, *cells)


if __name__ == "__main__":
    main()
