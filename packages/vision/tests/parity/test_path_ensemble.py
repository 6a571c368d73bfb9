from pathlib import Path

import pytest
import timm
import torch

from attn_vision.models.path_ensemble import PathEnsemble
from attn_vision.official import vit
from core_attn.testing import assert_parity, load_case, parity_cases


def ours(case):
    config = {k: x for k, x in case.config.items() if k != "pruned_paths"}
    params = {k: x for k, x in case.params.items() if k != "ensemble_scale"}
    return config, params


@pytest.mark.parametrize("library", ["ours", "timm"])
@pytest.mark.parametrize(
    "path", parity_cases("path_ensemble", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_paths_pruning_scales_and_gradients(path, library):
    case = load_case(path)
    options, params = ours(case)
    if library == "ours":
        config = vit.config_from(options, params)
        model = config.build().eval()
        model.load_state_dict(vit.from_official(params, config))
    else:
        options.pop("norm_eps")
        model = timm.models.VisionTransformer(**options).eval()
        model.load_state_dict(params)
    x, pruned = case.inputs["x"], case.config["pruned_paths"]
    whole = PathEnsemble(model, scale=None)
    outputs = {f"path.{k}": path for k, path in enumerate(whole.paths(x))}
    outputs |= {
        "logits": whole(x),
        "logits_leave_one_path_out": whole.leave_one_out(x),
        "logits_only_path": whole.only_one(x),
        "logits_pruned": PathEnsemble(model, pruned, scale=None)(x),
    }
    assert whole(x).equal(model(x))
    scaled = PathEnsemble(model, pruned)
    with torch.no_grad():
        scaled.ensemble_scale.copy_(case.params["ensemble_scale"])
    x.requires_grad_()
    outputs["logits_pruned_scaled"] = scaled(x)
    (outputs["logits_pruned_scaled"] * case.inputs["grad_weight"]).sum().backward()
    assert_parity(outputs, case.outputs)
    grads = {name.removeprefix("model."): p.grad for name, p in scaled.named_parameters()}
    assert_parity(grads | {"in.x": x.grad}, case.grads)
