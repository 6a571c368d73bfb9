"""Arguments out of range end in a message with the value and what is allowed."""

import math

import pytest
import torch
from torch import nn

from core_attn import MultiHeadAttention
from core_attn.analysis import (
    Bench,
    Layout,
    PartialPruning,
    bootstrap,
    circuits,
    find_sites,
    head_importance,
    offset_map,
)

pytestmark = pytest.mark.refuses


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.head = MultiHeadAttention(8, heads=2), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attn(x).mean(1))


MODEL, X = Classifier().eval(), torch.randn(4, 5, 8)
IDS = [torch.tensor([1, 2, 3])] * 2


def importance(labels, inputs=X):
    return head_importance(Bench(MODEL, [(inputs, labels)]))


def circuit(**settings):
    model = nn.Sequential(nn.Embedding(5, 8), MultiHeadAttention(8, heads=2)).eval()
    return circuits.find_circuit(model, IDS, IDS, **{"features": 2, "steps": 1} | settings)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: importance(torch.tensor([0, 1, 2, 3])), "labels must be 0 to 2, got 0 to 3"),
        (lambda: importance(torch.tensor([0, 1, 2, -1])), "labels must be 0 to 2, got -1 to 2"),
        (lambda: importance(torch.tensor([0, 1])), r"4 inputs, its labels have shape \(2,\)"),
        (lambda: importance(torch.zeros(4)), "labels of batch 0 must be integers"),
        (lambda: importance(None, X[:0]), "batch 0 is empty"),
        (lambda: importance(None).ranking("x"), "no metric 'x' here; metrics: accuracy_drop, "),
        (lambda: find_sites(MODEL).edit("heads", {"x": abs}).__enter__(), "no layer is named 'x'"),
        (lambda: find_sites(MODEL).edit("keys", {}).__enter__(), "tap must be 'heads' or 'pat"),
        (lambda: Layout((0, 3)), r"sides of at least 1 .* got \(0, 3\) and 1"),
        (lambda: Layout((2, 3), -1), r"prefix not be negative; got \(2, 3\) and -1"),
        (lambda: PartialPruning("near", -1), "reach must not be negative, got -1"),
        (lambda: offset_map(torch.eye(5), Layout((2, 2))), r"2x2, are needed; got shape \(5, 5\)"),
        (lambda: bootstrap(torch.zeros(0)), "0 samples by 1000 draws"),
        (lambda: circuit(steps=0), "steps must be at least 1, got 0"),
        (lambda: circuit(features=0), "features must be at least 1, got 0"),
        (lambda: circuit(examples=0), "examples must be at least 1, got 0"),
        (lambda: circuit(sparsity=math.nan), "sparsity not negative; got 0.001 and nan"),
        (lambda: circuits.ioi(0), "count must be at least 1, got 0"),
        (lambda: circuits.docstring(-1), "count must be at least 1, got -1"),
    ],
)
def test_refused(refused, message):
    with pytest.raises((TypeError, ValueError), match=message):
        refused()
