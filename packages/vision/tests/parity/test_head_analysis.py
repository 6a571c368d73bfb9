from pathlib import Path

import pytest
import timm
import torch

from core_attn.analysis import (
    Bench,
    Layout,
    attention_strength,
    find_sites,
    head_importance,
)  # fmt: skip
from core_attn.testing import assert_parity, load_case, parity_cases

FILES = parity_cases("head_analysis", Path(__file__).parent / "cases")
METRICS = ("prob_drop", "loss_increase", "js", "kl", "cls_cosine_distance")


def loaded(case):
    config = dict(case.config)
    layout = Layout(tuple(config.pop("grid")), config.pop("prefix_tokens"))
    eps = config.pop("norm_eps")
    model = timm.models.VisionTransformer(
        **config, norm_layer=lambda dim, **other: torch.nn.LayerNorm(dim, eps=eps, **other)
    )
    model.load_state_dict(case.params)
    return model.eval(), layout


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_importance_of_every_head(path):
    case = load_case(path)
    model, _ = loaded(case)
    bench = Bench(model, [(case.inputs["x"], case.inputs["labels"])])
    found = head_importance(bench)
    actual = {f"metric.{name}": found.values[name].mean(0) for name in METRICS}
    actual |= {"logits": found.base.output, "cls_feature": found.base.feature}
    removed, alone, feature = [], [], []
    for name, count in bench.num_heads.items():
        for head in range(count):
            with bench.removed([(name, head)]):
                outcome = bench.outcome(case.inputs["x"])
            removed.append(outcome.output)
            feature.append(outcome.feature)
            with bench.removed((name, other) for other in range(count) if other != head):
                alone.append(bench.outcome(case.inputs["x"]).output)
    shape = (len(bench.num_heads), count)
    actual |= {
        "logits_head_removed": torch.stack(removed).unflatten(0, shape),
        "logits_only_head_in_layer": torch.stack(alone).unflatten(0, shape),
        "cls_feature_head_removed": torch.stack(feature).unflatten(0, shape),
    }
    with bench.sites.record("pattern") as seen:
        model(case.inputs["x"])
    actual["attention"] = torch.stack(list(seen.values()), 1)
    expected = {k: v for k, v in case.outputs.items() if not k.startswith("strength.")}
    assert_parity(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_strength_of_every_head(path):
    case = load_case(path)
    model, layout = loaded(case)
    found = attention_strength(model, [case.inputs["x"]], layout, find_sites(model))
    numbers = [strength.numbers() for strength in found.values()]
    actual = {
        f"strength.{name}": torch.stack([layer[name] for layer in numbers], 1)
        for name in numbers[0]
    }
    expected = {k: v for k, v in case.outputs.items() if k.startswith("strength.")}
    assert_parity(actual, expected)
