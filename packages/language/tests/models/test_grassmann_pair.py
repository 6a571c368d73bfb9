"""The head on two sentences' features: padding, partners on both sides, refusals, learning."""

import pytest
import torch
from torch.nn import functional as F

from attn_language.models.grassmann_pair import GrassmannPairConfig, PairMixing

SMALL = GrassmannPairConfig(features=6, dim=8, reduced=8, heads=2, hidden=16, dropout=0.0)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = SMALL.build().eval()
    a, b = torch.randn(2, 2, 5, 6)
    expected = model(a, b)
    padded = F.pad(a, (0, 0, 0, 4), value=float("nan"))
    torch.testing.assert_close(model(padded, b, torch.tensor([5, 5])), expected)


def test_mixing_is_the_mean_of_normed_planes_of_every_head():
    torch.manual_seed(0)
    mixing = PairMixing(SMALL)
    h = torch.randn(1, 5, 8)
    z = mixing.reduce(h)[0].unflatten(1, (2, 4))
    i, j = torch.triu_indices(4, 4, 1)
    planes = torch.zeros(5, 2, 6)
    for t in range(5):
        found = []
        for other in (t + d for d in (-4, -2, -1, 1, 2, 4) if 0 <= t + d < 5):
            p = z[t][:, i] * z[other][:, j] - z[t][:, j] * z[other][:, i]
            found.append(p / p.norm(dim=-1, keepdim=True))
        planes[t] = torch.stack(found).mean(0)
    g = mixing.project(planes.flatten(1))
    alpha = mixing.gate(torch.cat((h[0], g), -1)).sigmoid()
    mixed, _ = mixing(h, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(mixed[0], alpha * h[0] + (1 - alpha) * g)


def test_an_empty_sentence_is_finite():
    x = torch.randn(2, 3, 6)
    assert SMALL.build()(x, x, torch.tensor([0, 1])).isfinite().all()


def test_it_learns_whether_sentences_are_alike():
    torch.manual_seed(0)
    model = GrassmannPairConfig(
        features=6, classes=2, dim=16, reduced=8, heads=2, hidden=16, dropout=0.0
    ).build()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        a = torch.randn(32, 5, 6, generator=generator)
        label = torch.randint(2, (32,), generator=generator)
        b = torch.where(label[:, None, None] == 1, a, torch.randn(32, 5, 6, generator=generator))
        scores = model(a, b)
        optimizer.zero_grad()
        F.cross_entropy(scores, label).backward()
        optimizer.step()
    assert (scores.argmax(-1) == label).float().mean() > 0.8


@pytest.mark.parametrize(
    "changes, message",
    [({"reduced": 9}, "2 or more features"), ({"offsets": (0,)}, "positive"),
     ({"offsets": (1, 1)}, "distinct")],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GrassmannPairConfig(**changes)


def test_inputs_that_do_not_fit_are_refused():
    model = SMALL.build()
    with pytest.raises(ValueError, match="7 features, the head takes 6"):
        model.sentence(torch.randn(1, 3, 7))
    with pytest.raises(ValueError, match="lengths must be"):
        model.sentence(torch.randn(1, 3, 6), torch.tensor([4]))
