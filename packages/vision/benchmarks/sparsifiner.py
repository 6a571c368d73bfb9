"""python -m benchmarks.sparsifiner [--threads N] [--seconds S]: gathered keys beside masked."""

import torch
from jsonargparse import auto_cli

from attn_vision.models.blocks import SelfAttention
from attn_vision.models.sparsifiner import SparseAttention, SparsifinerConfig
from attn_vision.models.tokens import TokenState
from benchmarks.ratios import compare
from core_attn import attention, gather_attention


def main(threads: int = 1, seconds: float = 10.0) -> None:
    """Attention alone, with the selection, and the selection, at 197 and 1,025 tokens."""
    cases = {}
    for side in (224, 512):
        grid = (side // 16, side // 16)
        for rate in (0.25, 0.1):
            config = SparsifinerConfig(side, dim=384, heads=6, keep_rates=(rate,))
            layer = SparseAttention(config, 0).eval()
            tokens = 1 + grid[0] * grid[1]
            x = torch.randn(1, tokens, 384)
            state = TokenState(x, grid, prefix=1)
            with torch.no_grad():
                q, k, v = layer.queries(state)
                predicted = layer.mask_predictor(q, k)
                index, mask = layer.chosen(predicted, None), layer.mask(predicted, None)

            def gathered(q=q, k=k, v=v, index=index):
                return gather_attention(q[:, :, 1:], k, v, index)

            def masked(q=q, k=k, v=v, mask=mask):
                return attention(q, k, v, mask=mask)

            def chosen(layer=layer, predicted=predicted):
                return layer.chosen(predicted, None)

            def dense(q=q, k=k, v=v):
                return attention(q, k, v)

            name = f"{tokens} tokens, keep {rate}"
            cases[f"{name}: gathered / masked"] = (gathered, masked)
            cases[f"{name}: selection alone / dense"] = (chosen, dense)
            plain = SelfAttention(384, 6).eval()
            cases[f"{name}: the whole layer / dense layer"] = (
                lambda layer=layer, state=state: layer(state),
                lambda plain=plain, state=state: plain(state),
            )
    with torch.inference_mode():
        compare(cases, threads=threads, seconds=seconds)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
