from pathlib import Path

import pytest

from attn_language.official import dha
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("dha", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_recorded_outputs_and_gradients(path):
    case = load_case(path)
    fusing = dha.attention_from(case.config, case.params)
    x = case.inputs["x"].requires_grad_()
    y, _ = fusing(x)
    losses = fusing.fuse_k.loss(), fusing.fuse_v.loss()
    outputs = {"y": y, "fusion_loss_k": losses[0][None], "fusion_loss_v": losses[1][None]}
    for kind, fusion in (("k", fusing.fuse_k), ("v", fusing.fuse_v)):
        outputs |= {f"{kind}_fused": fusion.fused(), f"{kind}_shared": fusion.shared()}
    ((y * case.inputs["cotangent"]).sum() + sum(losses)).backward()
    assert_parity(outputs, case.outputs)
    grads = dha.to_official({name: p.grad for name, p in fusing.named_parameters()})
    assert_parity(grads | {"in.x": x.grad}, case.grads)
