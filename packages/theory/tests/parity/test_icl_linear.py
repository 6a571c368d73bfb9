from pathlib import Path

import pytest
import torch

from attn_theory.icl_linear import ICLConfig, SeededLayers, SingleLayer, from_official, to_official
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("icl_linear", Path(__file__).parent / "cases")


def config_of(case):
    c = case.config
    return ICLConfig(c["d"], c["dy"], c["heads"], c["layers"], c["weight_tying"])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_outputs_and_gradients_equal_the_official_ones(path):
    case = load_case(path)
    model = from_official(case.params, config_of(case))
    z, z_q = (case.inputs[name].requires_grad_() for name in ("z", "z_q"))
    y = model(z, z_q)
    (y * case.inputs["loss_weight"]).sum().backward()
    assert_parity({"y_hat": y}, {"y_hat": case.outputs["y_hat"]}, rtol=1e-5, atol=1e-5)
    grads = {name: p.grad for name, p in model.named_parameters()}
    grads |= {"in.z": z.grad, "in.z_q": z_q.grad}
    assert_parity(grads, case.grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_key_query_and_output_value_equal_the_official_ones(path):
    case = load_case(path)
    if "W_QK" not in case.outputs:
        pytest.skip("a stack records no W_QK")
    layer = from_official(case.params, config_of(case))
    assert isinstance(layer, SingleLayer)
    width = layer.config.width
    kq = layer.key_query()
    actual = {
        "W_QK": kq.transpose(-1, -2) * width**0.5,
        "W_OV": layer.output_value().transpose(-1, -2),
        "omega": kq.diagonal(dim1=-2, dim2=-1)[:, : layer.config.d].mean(-1),
    }
    assert_parity(actual, {name: case.outputs[name] for name in actual}, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_official_keys_survive_the_way_back(path):
    case = load_case(path)
    back = to_official(from_official(case.params, config_of(case)))
    for key, value in case.params.items():
        assert back[key].equal(value), key


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_absorbed_form_equals_the_layer_in_values_and_gradients(path):
    case = load_case(path)
    if case.config["layers"] > 1:
        pytest.skip("the absorbed form has one layer")
    layer = from_official(case.params, config_of(case)).double()
    seeded = SeededLayers(layer.config, seeds=3).double()
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
    with torch.no_grad():
        for ours, theirs in names.items():
            getattr(seeded, ours)[1] = getattr(layer.attention_layer, theirs).weight
    z, z_q = (case.inputs[name].double() for name in ("z", "z_q"))
    absorbed = seeded(z.expand(3, *z.shape), z_q.expand(3, *z_q.shape))[1]
    projected = layer(z, z_q)
    torch.testing.assert_close(absorbed, projected, rtol=1e-12, atol=1e-12)
    absorbed.sin().sum().backward()
    projected.sin().sum().backward()
    for ours, theirs in names.items():
        expected = getattr(layer.attention_layer, theirs).weight.grad
        torch.testing.assert_close(getattr(seeded, ours).grad[1], expected, rtol=1e-10, atol=1e-10)
