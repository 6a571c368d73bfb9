from pathlib import Path

import pytest

from attn_theory.random_feature_attention import Inputs, infinite_kernel
from attn_theory.random_feature_attention.official import from_recorded
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("random_feature_attention", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_features_fit_and_kernel_equal_the_recorded_ones(path):
    case = load_case(path)
    inputs = Inputs(case.inputs["x0"], case.inputs["x"])
    model = from_recorded(case.config, case.inputs["W"])
    assert_parity(
        {"features": model.features(inputs)},
        {"features": case.outputs["features"]},
        rtol=1e-5,
        atol=1e-5,
    )
    train = slice(case.config["n_train"])
    model.fit(inputs.rows(train), case.inputs["y_train"], case.config["ridge"])
    predicted = model.predict(inputs.rows(slice(case.config["n_train"], None)))
    assert_parity(
        {"pred_test": predicted.float(), "value_weights": model.values.float()},
        {name: case.outputs[name] for name in ("pred_test", "value_weights")},
        rtol=1e-4,
        atol=1e-4,
    )
    if "infinite_kernel_6x6" in case.outputs:
        few = inputs.rows(slice(6))
        kernel = {"infinite_kernel_6x6": infinite_kernel(few, few).float()}
        assert_parity(kernel, {k: case.outputs[k] for k in kernel}, rtol=1e-5, atol=1e-6)
