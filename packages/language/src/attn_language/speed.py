"""How fast the models of this package train and write, on this machine."""

import time

import torch
from torch.nn import functional as F

from core_attn.testing.timing import processor, table

from .generation import generate
from .models import Decoder, create

NAMES = [
    "transformer", "spikegpt", "grassmann", "rcmha", "uoe", "routing", "dha", "bam", "btx",
]  # fmt: skip


def measure(threads: int = 1) -> None:
    """Prints tokens per second of small models: training batches of 8 x 128, and writing.

    Raises:
        ValueError: there is no thread.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)
    rows = []
    for name in NAMES:
        model = create(name, dim=128, depth=2, context=128)
        assert isinstance(model, Decoder)
        ids = torch.randint(256, (8, 129))
        parameters = sum(p.numel() for p in model.parameters())
        times = []
        for _ in range(3):
            start = time.perf_counter()
            F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
            times.append(time.perf_counter() - start)
        training = 8 * 128 / min(times)
        model.eval()
        start = time.perf_counter()
        generate(model, [[1]], 100)
        writing = 100 / (time.perf_counter() - start)
        rows.append([name, f"{parameters:,}", f"{training:,.0f}", f"{writing:,.0f}"])
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32")
    print(table(("model", "parameters", "trained tokens/s", "written tokens/s"), rows))
