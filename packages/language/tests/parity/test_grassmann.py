from pathlib import Path

import pytest
from torch.nn import functional as F

from attn_language.official import grassmann
from core_attn import record
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("grassmann", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_recorded_outputs_and_gradients(path):
    case = load_case(path)
    config = grassmann.config_from(case.config, case.params)
    is_model = "idx" in case.inputs
    module = (config.build() if is_model else config.make_block(0)).eval()
    module.load_state_dict(grassmann.from_official(case.params, config))
    if is_model:
        logits = module(case.inputs["idx"])
        loss = F.cross_entropy(logits.flatten(0, 1), case.inputs["targets"].flatten())
        loss.backward()
        outputs, grads = {"logits": logits, "loss": loss[None]}, {}
    else:
        h = case.inputs["h"].requires_grad_()
        with record(module, "flow") as flow, record(module, "alpha") as alpha:
            y, _ = module(h)
        (y * case.inputs["cotangent"]).sum().backward()
        outputs = {"y": y, "g": flow["mixing"], "alpha": alpha["mixing"]}
        grads = {"in.h": h.grad}
    assert_parity(outputs, case.outputs)
    named = {name: p.grad for name, p in module.named_parameters()}
    assert_parity(grassmann.to_official(named, config) | grads, case.grads)
