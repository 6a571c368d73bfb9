"""short_attention_block beside the same block in plain PyTorch on the CPU, eager and compiled.

    python -m benchmarks.short_attention_block [--threads N] [--seconds S]

Plain: one product for queries, keys, values and residual, F.scaled_dot_product_attention, ReLU and
layer norm. Ratios are its time over ours: above 1 we are faster.
"""

import argparse

import torch
import torch.nn.functional as F

from core_attn import short_attention_block
from core_attn.testing.timing import geometric_mean, medians, processor, table

SHAPES = (  # batch, fields, features in and out
    (1024, 39, 16, 64),
    (1024, 39, 64, 64),
    (1024, 23, 64, 64),
    (4096, 13, 32, 32),
    (1024, 6, 64, 64),
)
OPTIONS = {"heads": 2, "activation": "relu", "residual": "linear_relu", "eps": 1e-8}


def plain(x, weight, bias, gain, shift):
    packed = F.linear(x, weight, bias).relu()
    width = gain.shape[0]
    q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in packed.split(width, -1)[:3])
    heads = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return F.layer_norm((heads + packed[..., 3 * width :]).relu(), (width,), gain, shift, 1e-8)


def ours(*tensors):
    return short_attention_block(*tensors, **OPTIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} thread(s), torch {torch.__version__}, float32\n")
    rivals = (ours, plain, torch.compile(plain))
    rows, ratios = [], []
    for batch, fields, before, width in SHAPES:
        generator = torch.Generator().manual_seed(0)
        shapes = ((batch, fields, before), (4 * width, before), (4 * width,), (width,), (width,))
        tensors = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]
        grad = torch.randn(batch, fields, width, generator=generator)

        def forward(rival, tensors=tensors):
            with torch.no_grad():
                rival(*tensors)

        def both(rival, tensors=tensors, grad=grad):
            torch.autograd.grad(rival(*tensors), tensors, grad)

        times = [
            medians([lambda f=f, run=run: run(f) for f in rivals], options.seconds)
            for run in (forward, both)
        ]
        ratios.append([t / each[0] for each in times for t in each[1:]])
        cells = [f"{1e3 * t:.2f}" for each in times for t in each]
        rows.append((f"{batch}, {fields}, {before} to {width}", *cells))
    header = ("batch, fields, features", "ours ms", "eager", "compiled",
              "ours ms, with backward", "eager", "compiled")  # fmt: skip
    print(table(header, rows))
    means = [geometric_mean(column) for column in zip(*ratios, strict=True)]
    print(
        "geometric means: forward {:.2f}x of eager, {:.2f}x of compiled; with backward {:.2f}x, "
        "{:.2f}x".format(*means)
    )


if __name__ == "__main__":
    main()
