"""What the views of a vision transformer refuse, each with the layer."""

import weakref

import pytest
import torch
from torch import nn

from core_attn import AttentionLayer, MultiHeadAttention
from core_attn.analysis import (
    Bench,
    Layout,
    Strength,
    attention_strength,
    find_sites,
    head_importance,
    sample_maps,
)

LAYOUT, VIEWS = Layout((2, 2), prefix=1), (attention_strength, sample_maps)


@pytest.mark.parametrize("prefix", [0, 1])
def test_no_image_keeps_its_weights_alive(prefix):
    strength = Strength(Layout((2, 2), prefix=prefix))
    weights = torch.rand(3, 2, 4 + prefix, 4 + prefix).softmax(-1)
    kept = weakref.ref(weights.untyped_storage())
    strength.update(weights)
    del weights
    assert kept() is None


@pytest.mark.parametrize("view", VIEWS)
def test_batches_are_taken_one_after_the_other(view):
    model = nn.Sequential(MultiHeadAttention(8, heads=2))
    sites, images = find_sites(model), [torch.randn(2, 5, 8) for _ in range(3)]
    given = {"images": 6} if view is sample_maps else {}
    before, alive = [], []

    def stream():
        for x in images:
            batch = x.clone()
            alive.append(sum(old() is not None for old in before))
            before.append(weakref.ref(batch.untyped_storage()))
            yield batch
            del batch

    view(model, stream(), LAYOUT, sites, **given)
    assert max(alive) <= 1  # that of the loop itself


def looked(view, model, x, layout=LAYOUT):
    return view(model, [x], layout, find_sites(model))


@pytest.mark.parametrize("view", VIEWS)
def test_tokens_that_are_no_grid_are_refused_with_layer_and_numbers(view):
    model = nn.Sequential(MultiHeadAttention(8, heads=2))
    with pytest.raises(ValueError, match=r"^0: .*6.* tokens do not fit 1 prefix.*2x2 = 4 patches"):
        looked(view, model, torch.randn(1, 6, 8))


@pytest.mark.parametrize("view", VIEWS)
def test_nan_is_refused_with_the_layer(view):
    model = nn.Sequential(nn.Identity(), MultiHeadAttention(8, heads=2))
    nn.init.constant_(model[1].qkv.weight, torch.nan)
    with pytest.raises(ValueError, match="^1: weights contain NaN"):
        looked(view, model, torch.randn(1, 5, 8))


@pytest.mark.parametrize("view", VIEWS)
def test_attention_that_is_no_softmax_is_refused_with_the_layer(view):
    class Gated(AttentionLayer):
        num_heads = 1

        def forward(self, x):
            weights = self.pattern(0.5 * torch.softmax(x @ x.mT, -1)[:, None])
            return self.heads((weights @ x[:, None]).transpose(1, 2)).flatten(2)

    with pytest.raises(ValueError, match="^0: a row of weights sums to 0.5 instead of 1"):
        looked(view, nn.Sequential(Gated()), torch.randn(1, 5, 8))


def test_importance_of_a_model_that_gives_nan_is_refused_with_the_image():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = MultiHeadAttention(8, heads=2)

        def forward(self, x):
            return self.attn(x) / (x[:, :1, :1] > 0)  # 0 / 0 somewhere

    x = torch.ones(3, 4, 8)
    x[2] = -1
    model = Broken().eval()
    with pytest.raises(ValueError, match="output on image 2 is NaN or infinite"):
        head_importance(Bench(model, [(x[:2], None), (x[2:], None)]))
