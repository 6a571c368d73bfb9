from pathlib import Path

import pytest
from torch import nn

from attn_language.models.lama import LowRankPooling
from attn_language.official import lama
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("lama", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    pool = LowRankPooling(case.config["input_dim"], case.config["num_heads"])
    ours, weights = lama.from_official(case.params)
    pool.load_state_dict(ours)
    project = nn.Identity()
    if case.config["output_dim"] is not None:
        project = nn.Sequential(
            nn.Flatten(),
            nn.Linear(
                case.config["num_heads"] * case.config["input_dim"], case.config["output_dim"]
            ),
        )
        project[1].load_state_dict(weights)

    h = case.inputs["h"].requires_grad_()
    pooled = pool(h, case.inputs["mask"].bool())
    y = project(pooled.states)
    (y * case.inputs["cotangent"]).sum().backward()
    assert_parity({"y": y, "attention": pooled.weights}, case.outputs)
    grads = lama.to_official(
        {name: p.grad for name, p in pool.named_parameters()},
        {name.removeprefix("1."): p.grad for name, p in project.named_parameters()},
    )
    assert_parity(grads | {"in.h": h.grad}, case.grads)
