"""Recording every head and every pattern of GPT-2 small, beside TransformerLens and bertviz.

`python -m benchmarks.analysis.lenses` needs `transformers`, and for the peers `bertviz` and
`transformer-lens<3` (in an environment of its own: that asks for transformers 4). The weights are
random; TransformerLens gets its own copy of them. Each way runs in a process of its own, for its
peak of memory.
"""

import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context

import torch
from torch import Tensor

from core_attn.testing.timing import processor, table

from .memory import peak_of

TOKENS, REPEATS = 256, 5


def gpt2():
    """GPT-2 small with random weights, by the eager attention that shows its weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_positions=TOKENS)
    config._attn_implementation = "eager"
    return GPT2LMHeadModel(config).eval()


def lens(theirs):
    """The same model in TransformerLens."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = HookedTransformerConfig(
        n_layers=12, d_model=768, n_ctx=TOKENS, d_head=64, n_heads=12, d_vocab=50257,
        act_fn="gelu_new", normalization_type="LN", device="cpu",
    )  # fmt: skip
    model = HookedTransformer(config)
    model.load_state_dict(convert_gpt2_weights(theirs, config), strict=False)
    return model.eval()


def ways() -> dict[str, Callable[[], Callable[[Tensor], object]]]:
    """What can be measured here: each makes the function that runs the model and keeps."""

    def forward():
        model = gpt2()
        return lambda ids: model(ids).logits

    def ours(taps: tuple[str, ...]):
        from core_attn.analysis import find_sites

        model = gpt2()
        sites = find_sites(model)

        def run(ids: Tensor) -> object:
            from contextlib import ExitStack

            with ExitStack() as stack:
                seen = [stack.enter_context(sites.record(tap)) for tap in taps]
                model(ids)
                return [dict(one) for one in seen]

        return run

    def bertviz():
        model = gpt2()
        return lambda ids: model(ids, output_attentions=True).attentions

    def hooked(names: tuple[str, ...]):
        model = lens(gpt2())
        return lambda ids: model.run_with_cache(ids, names_filter=lambda n: n.endswith(names))

    found = {
        "forward alone": forward,
        "record heads": lambda: ours(("heads",)),
        "record pattern": lambda: ours(("pattern",)),
        "record both": lambda: ours(("heads", "pattern")),
        "output_attentions, as bertviz reads it": bertviz,
    }
    if find_spec("transformer_lens"):
        kept = ("hook_z", "hook_pattern")
        found |= {
            "TransformerLens, heads": lambda: hooked(kept[:1]),
            "TransformerLens, pattern": lambda: hooked(kept[1:]),
            "TransformerLens, both": lambda: hooked(kept),
            "TransformerLens, everything": lambda: hooked(("",)),
        }
    return found


def measure(name: str, pipe) -> None:
    """Sends the median processor time and the peak of memory above the loaded model."""
    torch.set_num_threads(1)
    with torch.no_grad():
        run = ways()[name]()
        ids = torch.randint(50257, (1, TOKENS), generator=torch.Generator().manual_seed(0))
        run(ids)
        times = []
        for _ in range(REPEATS):
            start = time.process_time()  # one thread: what others do beside it does not count
            run(ids)
            times.append(time.process_time() - start)
        pipe.send((statistics.median(times), peak_of(lambda: run(ids))))


def main() -> None:
    """Prints a table."""
    rows, base = [], 0.0
    context = get_context("spawn")
    for name in ways():
        ours, theirs = context.Pipe()
        process = context.Process(target=measure, args=(name, theirs))
        process.start()
        theirs.close()
        try:
            seconds, peak = ours.recv()
        except EOFError:
            rows.append((name, "failed", "", ""))
            continue
        base = base or seconds
        rows.append((name, f"{1000 * seconds:.0f}", f"{seconds / base:.2f}", f"{peak:.0f}"))
        print(rows[-1], file=sys.stderr, flush=True)
    print(f"{processor()}, 1 thread, torch {torch.__version__}, transformers "
          f"{version('transformers')}; GPT-2 small, {TOKENS} tokens")  # fmt: skip
    print(
        table(
            ("what is kept", "ms of processor time", "of a forward", "peak MiB above the model"),
            rows,
        )
    )


if __name__ == "__main__":
    main()
