"""The command attn-language."""

import sys
from typing import Literal

from core_attn.cli import main as run
from core_attn.cli import positional


def main() -> int:
    """Runs attn-language and returns its exit code."""
    commands = {"generate": generate, "convert": convert, "bench": bench}
    return run("attn_language", commands=commands)


@positional("prompt")
def generate(
    ckpt: str,
    prompt: str = "\n",
    max_tokens: int = 100,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: str | None = None,
    seed: int = 0,
) -> None:
    """Write on after a prompt, as the tokens come, until the text ends.

    Args:
        ckpt: a checkpoint, a Hugging Face folder of the LLaMA family, or a GGUF file.
        prompt: the text to go on from.
        max_tokens: how many to add, at most.
        temperature: 0 for the likeliest token, 1 to draw as the model says.
        top_k: only so many of the likeliest are drawn from.
        top_p: only the likeliest that together reach this probability are drawn from.
        stop: a text at which to end.
        seed: of the draws.
    """
    from .generation import stream
    from .loading import load
    from .tokens import streamed, until

    model, tokenizer = load(ckpt)
    if tokenizer is None:
        raise ValueError(f"{ckpt} holds no tokenizer")
    ids = tokenizer.encode(prompt)
    if not ids:
        raise ValueError("the prompt is empty")
    if stop == "":
        raise ValueError("stop is empty")
    new = stream(
        model, ids, max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        stop=tokenizer.ends, seed=seed,
    )  # fmt: skip
    texts = streamed(tokenizer, new, ids[-4:])
    print(prompt, end="", flush=True)
    for text in texts if stop is None else until(stop, texts):
        print(text, end="", flush=True)
    print()


@positional("kind")
def convert(
    kind: Literal["dha", "bam", "btx"],
    ckpt: str,
    out: str,
    budget: float = 0.5,
    steps: int = 0,
    kv: Literal["expert", "shared"] = "expert",
) -> None:
    """Make another model of checkpoints: fewer key and value heads, or a mixture of several.

    Args:
        kind: "dha" fuses key and value heads; "bam" and "btx" mix several models.
        ckpt: the checkpoint, or several with commas between.
        out: the checkpoint to write.
        budget: share of the key and value heads to keep ("dha").
        steps: of fusion on the checkpoint's own training text; 0 averages at once ("dha").
        kv: whether attention experts have keys and values of their own ("bam").
    """
    from .conversion import convert as run_conversion

    for line in run_conversion(kind, ckpt.split(","), out, budget=budget, steps=steps, kv=kv):
        print(line)


def bench(threads: int = 1) -> None:
    """Measure tokens per second of every model, training and writing.

    Args:
        threads: of torch.
    """
    from .speed import measure

    measure(threads)


if __name__ == "__main__":
    sys.exit(main())
