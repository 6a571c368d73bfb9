"""In-context regression: seed-steps per second, and the estimator figure's time per prompt."""

import argparse

import numpy as np
import torch
from torch import nn

from attn_theory.icl_linear import ICLConfig, LinearRegression, SeededLayers, theory
from attn_theory.icl_linear.predictors import gradient_step, ridge, softmax_heads
from core_attn.testing.timing import medians, processor, table

TASK = LinearRegression()
BATCH = 256


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


def projected_steps(heads: int, steps: int):
    model = Projected(TASK.d + 1, heads)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.MSELoss()

    def run():
        for _ in range(steps):
            prompts = TASK.sample(BATCH)
            loss = loss_of(model(prompts.context, prompts.query), prompts.y_query.unsqueeze(1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return run


def seeded_steps(heads: int, seeds: int, steps: int):
    model = SeededLayers(ICLConfig(TASK.d, heads=heads), seeds)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def run():
        for _ in range(steps):
            prompts = TASK.sample(seeds, BATCH)
            y = model(prompts.context, prompts.query)
            loss = (y.squeeze(2) - prompts.y_query).square().mean((1, 2)).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return run


def prompt_loop(count: int, length: int):
    """One prompt after the other in numpy: two heads, one head, both gradient steps, ridge."""
    rng = np.random.default_rng(0)

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    def run():
        d, s2, errors = TASK.d, TASK.noise, np.zeros(5)
        for _ in range(count):
            x, x_q = rng.normal(size=(length, d)), rng.normal(size=d)
            beta = rng.normal(size=d) / np.sqrt(d)
            y = x @ beta + np.sqrt(s2) * rng.normal(size=length)
            y_q = x_q @ beta + np.sqrt(s2) * rng.normal()
            score = x @ x_q
            guesses = (
                3.45 * (y @ softmax(0.13 * score)) - 3.45 * (y @ softmax(-0.13 * score)),
                1.6277 * (y @ softmax(0.4472 * score)),
                0.897 / length * (x.T @ y) @ x_q,
                0.897 / length * ((x - x.mean(0)).T @ y) @ x_q,
                np.linalg.solve(x.T @ x + s2 * d * np.eye(d), x.T @ y) @ x_q,
            )
            errors += (np.array(guesses) - y_q) ** 2
        return errors / count

    return run


def prompt_batch(count: int, length: int):
    task = LinearRegression(length=length)
    pair = torch.tensor([1.0, -1.0], dtype=torch.float64)
    omega, mu, _ = theory.single_head(task.d, 40, task.noise)
    one = torch.ones(1, dtype=torch.float64)

    def run():
        prompts = task.sample(count, dtype=torch.float64)
        guesses = (
            softmax_heads(prompts, 0.13 * pair, 3.45 * pair),
            softmax_heads(prompts, omega * one, mu * one),
            0.897 * gradient_step(prompts),
            0.897 * gradient_step(prompts, debiased=True),
            ridge(prompts, task.noise * task.d)[0],
        )
        return (torch.stack(guesses, -1) - prompts.y_query).square().mean(0)

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0, help="per comparison")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} thread(s), torch {torch.__version__}\n")
    rows = []
    for heads in (1, 2, 4, 8):
        plain, four, sixteen = medians(
            (
                projected_steps(heads, 20), seeded_steps(heads, 4, 20), seeded_steps(heads, 16, 20)
            ),
            options.seconds,
        )  # fmt: skip
        rates = (20 / plain, 80 / four, 320 / sixteen)
        cells = [f"{rate:.0f}" for rate in rates] + [f"{r / rates[0]:.1f}" for r in rates[1:]]
        rows.append((f"H={heads}", *cells))
    print(f"training, batch {BATCH}, L={TASK.length}: seed-steps per second")
    header = ("", "projected", "4 seeds", "16 seeds", "ratio 4", "ratio 16")
    print(table(header, rows), end="\n\n")
    rows = []
    for length in (10, 40, 100):
        loop, batch = medians(
            (prompt_loop(300, length), prompt_batch(5000, length)), options.seconds
        )
        each = (loop / 300 * 1e6, batch / 5000 * 1e6)
        rows.append((f"L={length}", f"{each[0]:.1f}", f"{each[1]:.1f}", f"{each[0] / each[1]:.1f}"))
    print("estimator figure: microseconds per prompt")
    print(table(("", "prompt by prompt", "batched", "ratio"), rows))


if __name__ == "__main__":
    main()
