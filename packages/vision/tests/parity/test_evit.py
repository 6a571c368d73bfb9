from pathlib import Path

import pytest
import torch

from attn_vision.official import evit
from core_attn.testing import assert_parity, load_case, parity_cases


@pytest.mark.parametrize(
    "path", parity_cases("evit", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_official_outputs_kept_tokens_and_gradients(path):
    case = load_case(path)
    config = evit.config_from(case.config, case.params)
    model = config.build().eval()
    model.load_state_dict(evit.from_official(case.params, config))
    assert evit.to_official(model.state_dict(), config).keys() == case.params.keys()

    states = []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda m, args, y: states.append(args[0]))
    images = case.inputs["x"].requires_grad_()
    call = {"keep_rate": case.config["call_keep_rate"], "tokens": case.config["call_tokens"]}
    features = model.features(images, **call)
    left = [state.patches.shape[1] for state in states]
    logits = model(images, **call)
    outputs = {"cls_feature": model.pool(features), "logits": logits}
    outputs["left_tokens"] = torch.tensor(left)
    entering, shrinks = None, 0
    for state in states:
        if state.kept is not None and (entering is None or not state.kept.equal(entering)):
            if entering is None:
                rows, columns = (side // config.patch_size for side in images.shape[2:])
                entering = torch.arange(rows * columns).expand(len(images), -1)
            chosen = state.kept[:, :-1] if config.fuse else state.kept
            same = chosen[:, :, None] == entering[:, None]
            outputs[f"idx.{shrinks}"] = same.long().argmax(-1)
            entering, shrinks = state.kept, shrinks + 1
    (logits * case.inputs["grad_weight"]).sum().backward()
    assert_parity(outputs, case.outputs)
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert_parity(grads | {"in.x": images.grad}, case.grads)
