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
    depth = case.config.get("num_layers", 1)
    is_block = "num_layers" in case.config
    layers = [official.library_layer(case.config, i) for i in range(depth)]
    for i, layer in enumerate(layers):
        prefix = f"layers.{i}." if is_block else ""
        layer.load_state_dict(official.library_weights(case.params, prefix))
    x = case.inputs["x"].clone().requires_grad_()
    y, actual = x, {}
    for i, layer in enumerate(layers):
        with record(layer, "gate") as seen:
            y = layer(y) + y if is_block else layer(y)
        actual[f"attention.layer_{i}" if is_block else "attention"] = seen[""]
    (y * case.inputs["grad_weight"]).sum().backward()
    assert_parity(actual | {"y": y}, case.outputs)
    grads = {"in.x": x.grad}
    for i, layer in enumerate(layers):
        for name, ours in (("mean_offsets", layer.offset), ("c", layer.spread)):
            for head, grad in enumerate(ours.grad):
                prefix = f"layers.{i}." if is_block else ""
                grads[f"{prefix}attention_heads.{head}.{name}"] = grads[f"{prefix}{name}"] = grad
    assert_parity(grads, case.grads)
