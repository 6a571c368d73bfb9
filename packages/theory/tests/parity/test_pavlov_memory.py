from pathlib import Path

import pytest

from attn_theory.pavlov_memory.official import recurrence
from core_attn import use_backend
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("pavlov_memory", Path(__file__).parent / "cases")


@pytest.mark.parametrize("backend", ["chunked", "reference"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_outputs_state_and_gradients_equal_the_recorded_ones(path, backend):
    case = load_case(path)
    inputs = {name: x.requires_grad_() for name, x in case.inputs.items() if name != "loss_weight"}
    with use_backend(backend):
        o, state = recurrence(rule=case.config["rule"], **inputs)
    (o * case.inputs["loss_weight"]).sum().backward()
    assert_parity({"o": o, "final_state": state}, case.outputs, rtol=1e-5, atol=1e-5)
    grads = {f"in.{name}": x.grad for name, x in inputs.items()}
    assert_parity(grads, case.grads, rtol=1e-5, atol=1e-5)
