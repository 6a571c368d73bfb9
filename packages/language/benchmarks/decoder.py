"""A training step of the decoder against a bare SDPA loop of the same shape and x-transformers.

python -m benchmarks.decoder [threads]
"""

import sys

import torch
from torch import nn
from torch.nn import functional as F

from attn_language import create
from core_attn.testing.timing import medians, processor, table

VOCAB, DIM, DEPTH, HEADS, CONTEXT, BATCH = 256, 256, 4, 4, 256, 8


class Bare(nn.Module):
    """The same Transformer as a loop over functions, with the decoder's own parameters."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.p = nn.ParameterDict(
            {name.replace(".", "/"): p for name, p in model.named_parameters()}
        )

    def forward(self, ids):
        p = {name.replace("/", "."): x for name, x in self.p.items()}
        x = F.embedding(ids, p["embed.tokens.weight"])
        x = x + p["embed.positions.weight"][: ids.shape[1]]
        for block in range(DEPTH):
            at = f"blocks.{block}"

            def part(name, at=at):
                return p[f"{at}.{name}.weight"], p.get(f"{at}.{name}.bias")

            h = F.layer_norm(x, (DIM,), *part("norm1"))
            qkv = F.linear(h, *part("mixer.qkv")).unflatten(-1, (3, HEADS, -1)).transpose(1, 3)
            q, k, v = qkv.unbind(2)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + F.linear(y.transpose(1, 2).flatten(2), *part("mixer.out"))
            h = F.layer_norm(x, (DIM,), *part("norm2"))
            h = F.gelu(F.linear(h, *part("feed_forward.up")))
            x = x + F.linear(h, *part("feed_forward.down"))
        x = F.layer_norm(x, (DIM,), p["norm.weight"], p.get("norm.bias"))
        head = p.get("head.weight", p["embed.tokens.weight"])
        return F.linear(x, head, p.get("head.bias"))


def step(model: nn.Module, ids: torch.Tensor):
    """One training step: loss, gradients, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def once():
        optimizer.zero_grad()
        logits = model(ids[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()

    return once


def main(threads: int) -> None:
    from x_transformers import Decoder, TransformerWrapper

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = {"dim": DIM, "depth": DEPTH, "heads": HEADS}
    ours = create("transformer", vocab=VOCAB, context=CONTEXT, **shape)
    bare = Bare(create("transformer", vocab=VOCAB, context=CONTEXT, **shape))
    layers = Decoder(**shape, attn_dim_head=DIM // HEADS, attn_flash=True)
    theirs = TransformerWrapper(num_tokens=VOCAB, max_seq_len=CONTEXT, attn_layers=layers)
    ids = torch.randint(VOCAB, (BATCH, CONTEXT + 1))
    with torch.no_grad():
        torch.testing.assert_close(Bare(ours)(ids[:, :-1]), ours(ids[:, :-1]), rtol=1e-4, atol=1e-4)
    models = {"attn-language": ours, "bare SDPA loop": bare, "x-transformers, flash": theirs}
    times = medians([step(model, ids) for model in models.values()], 40)
    rows = [
        [name, f"{sum(p.numel() for p in model.parameters()):,}", f"{1e3 * time:.0f}",
         f"{time / times[0]:.2f}"]
        for (name, model), time in zip(models.items(), times, strict=True)
    ]  # fmt: skip
    print(f"{processor()}, {threads} thread(s), torch {torch.__version__}, float32, medians")
    print(table((f"batch {BATCH}, {CONTEXT} tokens, step", "parameters", "ms", "/ ours"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
