import copy
import pickle

import pytest
import torch
from torch import nn

from core_attn import (
    AttentionLayer,
    AuxiliaryLoss,
    Mean,
    MultiHeadAttention,
    attention_weights,
    edit,
    losses,
    record,
    short_attention,
)  # fmt: skip


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([MultiHeadAttention(8, 2) for _ in range(3)])

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def test_taps_are_absent_from_the_state_dict():
    assert not [name for name in Model().state_dict() if "pattern" in name or "heads" in name]


def test_record_gives_each_layer_by_name_and_stops_after_the_context():
    model = Model()
    with record(model, "pattern") as seen:
        model(torch.randn(2, 5, 8))
    before = seen["blocks.1"]
    model(torch.randn(2, 5, 8))
    assert list(seen) == ["blocks.0", "blocks.1", "blocks.2"]
    assert seen["blocks.1"] is before and before.shape == (2, 2, 5, 5)


def test_recorded_patterns_are_differentiable():
    model, x = Model(), torch.randn(2, 5, 8)
    with record(model, "pattern", layers="blocks.2") as seen:
        model(x)
    seen["blocks.2"][..., 0].sum().backward()
    assert model.blocks[0].qkv.weight.grad.abs().sum() > 0


def test_mean_over_batches_equals_the_mean_over_all_samples():
    model, data = Model(), torch.randn(7, 5, 8)
    with record(model, "pattern") as whole:
        model(data)
    with record(model, "pattern", Mean) as streamed:
        for batch in data.split(3):
            model(batch)
    torch.testing.assert_close(streamed["blocks.2"], whole["blocks.2"].mean(0))


def test_edits_apply_where_the_pattern_fits():
    model, x = Model(), torch.randn(1, 5, 8)
    with edit(model, {"blocks.*.heads": torch.zeros_like}):
        bias_only = model(x)
    expected = x + sum(block.proj.bias for block in model.blocks)
    torch.testing.assert_close(bias_only, expected)


def test_editing_the_pattern_reroutes_attention():
    layer, x = MultiHeadAttention(8, 2), torch.randn(1, 5, 8)
    with edit(layer, {"pattern": lambda p: torch.eye(5).expand_as(p)}):
        y = layer(x)
    torch.testing.assert_close(y, layer.proj(layer.qkv(x)[..., 16:]))


@pytest.mark.parametrize("mode", ["default", "compiled"])
def test_a_compiled_model_is_recorded_too(mode):
    model, x = Model().eval(), torch.randn(2, 5, 8)
    run = torch.compile(model, backend="aot_eager") if mode == "compiled" else model
    free = run(x)
    with record(run, "pattern") as seen:
        torch.testing.assert_close(run(x), free)
    assert seen["blocks.0"].shape == (2, 2, 5, 5)
    torch.testing.assert_close(run(x), free)


def test_wrong_names_are_explained():
    with pytest.raises(ValueError, match=r"no layer named '\*' has a tap 'patern'"):
        record(Model(), "patern").__enter__()
    with pytest.raises(ValueError, match=r"'blocks.9.heads'; did you mean 'blocks"):
        edit(Model(), {"blocks.9.heads": torch.zeros_like}).__enter__()
    with record(Model(), "heads") as seen, pytest.raises(ValueError, match="did not run"):
        _ = seen["blocks.0"]


def test_losses_are_weighted_and_handed_out_once():
    model = Model()
    model.router = AuxiliaryLoss(weight=0.5)
    value = torch.tensor(3.0, requires_grad=True)
    model.router(value)
    taken = losses(model)
    taken["router"].backward()
    assert value.grad == 0.5 and losses(model) == {}


def test_a_model_is_copied_without_its_losses():
    model = Model()
    model.router = AuxiliaryLoss(weight=0.5)
    model.router(torch.tensor(3.0, requires_grad=True) * 2)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert losses(copied) == {} and copied.router.weight == 0.5
    assert losses(model).keys() == {"router"}


def test_hooks_reach_a_compiled_model_that_has_run():
    layer, x = MultiHeadAttention(16, heads=4), torch.randn(2, 5, 16)
    compiled = torch.compile(layer, backend="eager")
    before = compiled(x)
    for factor in (0.0, 0.5):  # one listener after another of the same kind
        with edit(compiled, {"heads": lambda heads, factor=factor: heads * factor}):
            changed = compiled(x)
        with edit(layer, {"heads": lambda heads, factor=factor: heads * factor}):
            torch.testing.assert_close(changed, layer(x))
    for _ in range(2):
        with record(compiled, "heads") as seen:
            compiled(x)
        assert seen[""].shape == (2, 5, 4, 4)
    torch.testing.assert_close(compiled(x), before)


@pytest.mark.parametrize("tap", ["heads", "pattern"])
def test_an_edit_that_returns_nothing_is_an_error(tap):
    layer = MultiHeadAttention(16, heads=2)
    with edit(layer, {tap: lambda x: None}), pytest.raises(TypeError, match=f"{tap}.* NoneType"):
        layer(torch.randn(1, 3, 16))


def test_other_operators_go_through_the_taps():
    layer, q = AttentionLayer(), torch.randn(3, 2, 5, 8)
    free = layer.attend(q, q, q, operator=short_attention, scale=0.3)
    with record(layer, "pattern") as seen:
        watched = layer.attend(q, q, q, operator=short_attention, scale=0.3)
    torch.testing.assert_close(watched, free, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[""], attention_weights(q, q, scale=0.3))
    packed = q.transpose(1, 2).flatten(0, 1)
    heads = layer.attend(
        packed, packed, packed, operator=short_attention, offsets=torch.tensor([0, 5, 10, 15])
    )
    torch.testing.assert_close(heads, layer.attend(q, q, q).flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_the_pattern_is_seen_before_dropout_and_gate():
    layer, q, gate = AttentionLayer(), torch.randn(2, 3, 5, 8), torch.rand(2, 3)
    with record(layer, "pattern") as seen:
        layer.attend(q, q, q, dropout=0.9, head_gate=gate)
    torch.testing.assert_close(seen[""].sum(-1), torch.ones(2, 3, 5))
    with edit(layer, {"pattern": lambda p: torch.eye(5).expand_as(p)}):
        heads = layer.eval().attend(q, q, q, dropout=0.9, head_gate=gate)
    torch.testing.assert_close(heads, (q * gate[..., None, None]).transpose(1, 2))
