"""How fast this machine decodes: with and without kept keys and values, one text and eight."""

import time

import torch

from .models import create
from .models.decoding import DecodeOptions, decode
from .models.transformer_tts import TransformerTTS


def measure(name: str, frames: int, repeats: int) -> dict[str, float]:
    """Median seconds of decoding: "cached", "uncached", and of eight texts at once, "eight"."""
    model = create(name, reduction=1).eval()
    assert isinstance(model, TransformerTTS)
    text, lengths = torch.randint(1, 60, (8, 49)), torch.full((8,), 49)

    def seconds(rows: int, cached: bool, frames: int = frames) -> float:
        options = DecodeOptions(threshold=2.0, max_ratio=frames / 50, cached=cached)
        start = time.perf_counter()
        decode(model, text[:rows], lengths[:rows], options=options)
        return time.perf_counter() - start

    ways = {"cached": (1, True), "uncached": (1, False), "eight": (8, True)}
    times: dict[str, list[float]] = {way: [] for way in ways}
    seconds(8, True, 50)  # what is imported and compiled at the first call
    for _ in range(repeats):
        for way, how in ways.items():
            times[way].append(seconds(*how))
    return {way: sorted(values)[len(values) // 2] for way, values in times.items()}


def bench(name: str, frames: int, threads: int, repeats: int) -> None:
    """Prints what `measure` gives."""
    torch.set_num_threads(threads)
    took = measure(name, frames, repeats)
    print(f"{name}, {frames} frames, {threads} thread(s), median of {repeats}")
    print(f"cached    {took['cached']:.2f} s, {took['uncached'] / took['cached']:.1f}x uncached")
    at_once = 8 * took["cached"] / took["eight"]
    print(f"8 at once {took['eight']:.2f} s, {at_once:.1f}x one by one")
