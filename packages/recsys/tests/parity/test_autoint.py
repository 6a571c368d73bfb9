"""AutoInt against the official TensorFlow code, FuxiCTR and DeepCTR-Torch, from recorded runs."""

import inspect
from pathlib import Path

import pytest
import torch

from attn_recsys.layout import Layout
from attn_recsys.losses import official_log_loss
from attn_recsys.models import AutoInt, AutoIntConfig, BlockConfig
from attn_recsys.models.autoint import interacting_stack
from attn_recsys.official import (
    blocks_from_deepctr,
    blocks_from_fuxictr,
    from_deepctr,
    from_fuxictr,
    from_tensorflow,
    to_tensorflow,
)
from attn_recsys.optim import AdagradTF, AdamTF
from core_attn.taps import record
from core_attn.testing import ParityCase, assert_parity, load_case, parity_cases

CASES = parity_cases("autoint", Path(__file__).parent / "cases")
OPTIMIZERS = {
    "adam": AdamTF,
    "adagrad": AdagradTF,
    "gd": torch.optim.SGD,
    "momentum": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.95),
}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recorded_run_is_reproduced(path):
    case = load_case(path)
    if "kind" in case.config:
        check_official(case)
    elif "peer" in case.config:
        check_whole(case)
    else:
        check_blocks(case)


def check_official(case: ParityCase):
    settings = case.config
    config = AutoIntConfig(
        dim=settings["embedding_size"],
        block_widths=settings["block_shape"][: settings["blocks"]],
        heads=settings["heads"],
        residual="linear_relu" if settings["has_residual"] else "none",
        deep_widths=settings["deep_layers"] or (),
        deep_norm=bool(settings.get("batch_norm")),
        deep_norm_eps=1e-3,
    )
    inputs = dict(case.inputs)
    index, value, widths = official_rows(inputs, settings["field_size"])
    model = AutoInt(
        Layout.plain(settings["field_size"], rows=settings["n_features"], widths=widths), config
    ).eval()
    model.load_state_dict(from_tensorflow(case.params, config))

    with record(model, "pattern") as patterns, record(model, "heads"):
        logits = model(index, value)
    out = {
        "emb": model.embedding(index, value),
        "logits": logits[:, None],
        "pred": logits.sigmoid()[:, None],
        "interacting": model.blocks(model.embedding(index, value)),
        **{f"att{i}": patterns[f"blocks.{i}"].transpose(0, 1) for i in range(len(patterns))},
    }
    if model.deep is not None:
        out["logits_deep"] = model.deep(out["emb"].flatten(1))
    loss = official_log_loss(model(index, value), inputs["label"].squeeze(-1))
    out["loss"] = loss[None]
    loss.backward()
    plain = {k: x for k, x in case.outputs.items() if not k.startswith(("step", "after"))}
    assert_parity(out, plain, rtol=1e-5, atol=1e-5)
    assert_parity(official_grads(model, config), strip(case.grads), rtol=1e-4, atol=1e-6)
    if settings["optimizer"]:
        check_trajectory(case, model, config, index, value)


def check_trajectory(case, model, config, index, value):
    settings, inputs = case.config, case.inputs
    optimizer = OPTIMIZERS[settings["optimizer"].lower()](
        model.parameters(), lr=settings["learning_rate"]
    )
    for step in range(settings["steps"]):
        index_, value_, _ = official_rows(inputs, settings["field_size"], f"step{step}.")
        loss = official_log_loss(model(index_, value_), inputs[f"step{step}.label"].squeeze(-1))
        torch.testing.assert_close(loss[None], case.outputs[f"step{step}.loss"], atol=1e-5, rtol=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = model(index, value)[:, None]
    torch.testing.assert_close(after, case.outputs["after_logits"], atol=2e-5, rtol=0)
    ours = to_tensorflow(model.state_dict(), config)
    expected = {k.removeprefix("after."): x for k, x in case.outputs.items() if "after." in k}
    off = torch.cat(
        [(ours[k].reshape(x.shape) - x).abs().flatten() for k, x in strip(expected).items()]
    )
    # A parameter whose gradient is almost 0 may take its step in either direction.
    assert (off > 1e-5).float().mean() < 0.01
    assert off.max() <= 2 * settings["steps"] * settings["learning_rate"]


def check_blocks(case: ParityCase):
    settings = case.config
    if "attention_dim" in settings:
        config = BlockConfig(
            heads=settings["num_heads"],
            qkv_activation="none",
            qkv_bias=False,
            scale=settings["use_scale"],
            residual="identity" if settings["use_residual"] else "none",
            norm="pre_relu" if settings["layer_norm"] else "none",
            norm_eps=1e-5,
        )
        in_width, width = settings["input_dim"], settings["attention_dim"]
        convert = blocks_from_fuxictr
    else:
        config = BlockConfig(
            heads=settings["head_num"],
            qkv_activation="none",
            qkv_bias=False,
            scale=settings["scaling"],
            residual="linear" if settings["use_res"] else "none",
            norm="none",
        )
        in_width = width = settings["embedding_size"]
        convert = blocks_from_deepctr
    stack = interacting_stack(in_width, (width,) * settings["layers"], config)
    weights = {name: x.clone().requires_grad_() for name, x in case.params.items()}
    state = convert(weights)
    assert set(state) == set(stack.state_dict())
    x = case.inputs["x"].clone().requires_grad_()

    out, y = {}, x
    for i, block in enumerate(stack):
        mine = {k.split(".", 1)[1]: w for k, w in state.items() if k.split(".")[0] == str(i)}
        with record(block, "pattern") as seen:
            watched = torch.func.functional_call(block, mine, (y,))
        y = torch.func.functional_call(block, mine, (y,))
        torch.testing.assert_close(watched, y, atol=1e-5, rtol=1e-5)
        out[f"layer{i}"], out[f"att{i}"] = y, seen[""].transpose(0, 1)
    assert_parity(out, case.outputs, rtol=1e-5, atol=1e-5)
    (y * case.inputs["cotangent"]).sum().backward()
    grads = {"in.x": x.grad, **{name: w.grad for name, w in weights.items()}}
    assert_parity(grads, case.grads, rtol=1e-4, atol=1e-5)


def check_whole(case: ParityCase):
    """A peer's whole model: `in.ids` count from 0 in each field, numbers have id 0."""
    layout = Layout(**case.config["layout"])
    config = AutoIntConfig(**case.config["switches"])
    convert = {"fuxictr": from_fuxictr, "deepctr_torch": from_deepctr}[case.config["peer"]]
    model = AutoInt(layout, config).eval()
    model.load_state_dict(convert(case.params, layout, dropout=config.deep_dropout > 0))
    firsts = torch.tensor(layout.firsts).repeat_interleave(torch.tensor(layout.widths))
    index, value = case.inputs["ids"] + firsts, case.inputs["value"]
    layout.check(index, value)
    assert_parity({"logits": model(index, value)}, case.outputs, rtol=1e-5, atol=1e-5)


def official_rows(inputs, fields, prefix=""):
    index, value = inputs[prefix + "feat_index"], inputs[prefix + "feat_value"]
    if prefix + "genre_index" not in inputs:
        return index, value, None
    genres = inputs[prefix + "genre_index"]
    index = torch.cat([index, genres], 1)
    value = torch.cat([value, inputs[prefix + "genre_value"]], 1)
    return index, value, (1,) * (fields - 1) + (genres.shape[1],)


def official_grads(model, config):
    grads = to_tensorflow({name: p.grad for name, p in model.named_parameters()}, config)
    return {name: g if g.dim() else g[None] for name, g in grads.items()}  # as it was recorded


def strip(tensors):
    return {name.rpartition("|")[2]: x for name, x in tensors.items()}


def test_every_switch_of_the_converters_is_a_field_of_the_config():
    assert set(inspect.signature(BlockConfig).parameters) <= set(
        inspect.signature(AutoIntConfig).parameters
    )
