from pathlib import Path

import pytest
from torch.nn import functional as F

from attn_speech.models.gaam import focal_loss
from attn_speech.official import gaam as official
from core_attn import importance_factor, record
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("gaam", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    check = _library if "class" in case.config else _experiment
    check(case)


def _experiment(case):
    config = official.config_from(case.config)
    model = config.build()
    model.load_state_dict(official.from_official(case.params, config))
    model.train()
    x = case.inputs["x"].clone().requires_grad_()
    gated = []
    model.gate.register_forward_hook(lambda _module, _args, y: gated.append(y))
    with record(model, "gate") as seen:
        scores = model(x)
    loss = focal_loss(scores, case.inputs["labels"])
    loss.backward()
    mean = seen["gate"].mean(0)
    actual = {
        "logits": scores, "focal_loss": loss, "attention": seen["gate"], "daam": gated[0],
        "ce_loss": F.cross_entropy(scores, case.inputs["labels"]),
        "attention_batch_mean": mean, "importance_factor": importance_factor(mean),
    }  # fmt: skip
    assert_parity(actual, case.outputs)
    heads = next(key.split(".")[1] for key in case.params if key.startswith("daam."))
    grads = official.to_official({k: p.grad for k, p in model.named_parameters()}, heads)
    assert_parity(grads | {"in.x": x.grad}, case.grads)


def _library(case):
    module = official.library(case.config)
    module.load_state_dict(official.library_weights(case.params))
    x = case.inputs["x"].clone().requires_grad_()
    with record(module, "gate") as seen:
        y = module(x)
    (y * case.inputs["grad_weight"]).sum().backward()
    actual = {f"attention.{name.replace('s.', '_')}".rstrip("."): a for name, a in seen.items()}
    assert_parity(actual | {"y": y}, case.outputs)
    grads = official.library_weights({k: v for k, v in case.grads.items() if k != "in.x"})
    assert_parity({k: p.grad for k, p in module.named_parameters()}, grads)
    assert_parity({"in.x": x.grad}, {"in.x": case.grads["in.x"]})
