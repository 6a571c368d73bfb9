from pathlib import Path

import pytest
import torch

from attn_vision.analysis import mean_distance
from attn_vision.models.gated_positional import GatedPositionalAttention
from attn_vision.models.tokens import TokenState
from attn_vision.official import convit
from core_attn import record
from core_attn.testing import assert_parity, load_case, parity_cases


def layer(case):
    c = case.config
    options = {"qkv_bias": c["qkv_bias"], "locality_strength": c["locality_strength"]}
    made = GatedPositionalAttention(c["dim"], c["num_heads"], **options).eval()
    side = round(c["num_patches"] ** 0.5)
    return made, (side, side)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize(
    "path", parity_cases("convit", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_official_outputs_and_gradients(path, looks, agrees):
    case = load_case(path)
    if "num_patches" not in case.config:
        config = convit.config_from(case.config, case.params)
        model = config.build().eval()
        model.load_state_dict(convit.from_official(case.params, config))
        assert convit.to_official(model.state_dict(), config).keys() == case.params.keys()
        return agrees(case, model)
    gpsa, grid = layer(case)
    gpsa.load_state_dict(case.params)
    x = case.inputs["x"].requires_grad_()
    outputs = {"rel_indices": case.outputs["rel_indices"]}
    if looks:
        with record(gpsa, "pattern") as seen:
            y = gpsa(TokenState(x, grid))
        outputs |= {"attn": seen[""], "nonlocality": mean_distance(seen[""], grid).mean((0, 2))}
    else:
        y = gpsa(TokenState(x, grid))
    (y * case.inputs["cot"]).sum().backward()
    hidden = {} if looks else {name: case.outputs[name] for name in ("attn", "nonlocality")}
    assert_parity(outputs | hidden | {"y": y}, case.outputs)
    grads = {name: p.grad for name, p in gpsa.named_parameters()}
    assert_parity(grads | {"in.x": x.grad}, case.grads)


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in parity_cases("convit", Path(__file__).parent / "cases")
        if path.stem.startswith("gpsa_init")
    ],
    ids=lambda p: p.stem,
)
def test_the_first_heads_start_where_the_official_ones_do(path):
    case = load_case(path)
    gpsa, _ = layer(case)
    local = int(case.config["num_heads"] ** 0.5) ** 2
    for name, ours in (("pos_proj.weight", gpsa.pos_proj.weight), ("v.weight", gpsa.v.weight)):
        rows = slice(local if name.startswith("pos") else None)
        assert ours[rows].equal(case.params[name][rows]), name
    assert gpsa.gating_param.equal(torch.ones_like(gpsa.gating_param))
