"""Options of the official constructors that no recorded run has."""

import pytest
import torch

from attn_recsys.layout import Layout
from attn_recsys.models import AutoInt, AutoIntConfig, create
from attn_recsys.official import from_deepctr, from_fuxictr, from_tensorflow, to_tensorflow

TABLE = "embedding_layer.embedding_layer.embedding_layers.{}.weight"


def test_batch_norm_of_the_official_deep_part_goes_there_and_back():
    config = AutoIntConfig(
        dim=3, block_widths=(4,), deep_widths=(5, 4), deep_norm=True, deep_norm_eps=1e-3
    )
    model = AutoInt(Layout.plain(2, rows=6), config)
    for x in model.buffers():
        if x.is_floating_point():
            x.data.uniform_(0.5, 1.5)
    theirs = to_tensorflow(model.state_dict(), config)
    assert theirs["bn_1/moving_variance"].shape == (4,)
    assert theirs["Variable_1"].shape == (1, 5) and theirs["prediction_bias"].shape == ()
    assert {x.eps for x in model.modules() if isinstance(x, torch.nn.BatchNorm1d)} == {1e-3}
    theirs |= {"role|global_step": torch.tensor(7), "bn_0/gamma/Adam": torch.ones(5)}
    other = AutoInt(Layout.plain(2, rows=6), config)
    other.load_state_dict(from_tensorflow(theirs, config))
    for name, x in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], x)


def deepctr_weights(**tables):
    return {f"embedding_dict.{name}.weight": x for name, x in tables.items()} | {
        f"linear_model.embedding_dict.{name}.weight": x[:, :1] for name, x in tables.items()
    }


def test_deepctr_without_attention_reads_the_deep_part_alone():
    layout = Layout(("a", "n"), (1, 1), (1, 4), (3, 1), 5, ("n",))
    table, w, b = torch.randn(3, 4), torch.randn(2, 5), torch.randn(2)
    out = torch.randn(1, 2)
    weights = deepctr_weights(a=table) | {
        "linear_model.weight": torch.tensor([[0.5]]), "dnn.linears.0.weight": w,
        "dnn.linears.0.bias": b, "dnn_linear.weight": out, "out.bias": torch.tensor([0.1]),
    }  # fmt: skip
    model = create("autoint_deepctr_torch", layout, dim=4, block_widths=(), deep_widths=(2,)).eval()
    model.load_state_dict(from_deepctr(weights, layout))
    found = model(torch.tensor([[2, 4]]), torch.tensor([[1.0, 3.0]]))
    hidden = (w @ torch.cat([table[1], torch.tensor([3.0])]) + b).relu()
    torch.testing.assert_close(found, (out @ hidden) + table[1, 0] + 1.5 + 0.1)


def test_deepctr_without_a_deep_part_keeps_numbers_in_the_linear_term():
    layout = Layout(("a", "n"), (1, 1), (1, 4), (3, 1), 5, ("n",))
    model = create("autoint_deepctr_torch", layout, dim=4, block_widths=(4,), deep_widths=())
    model(torch.tensor([[2, 4]]), torch.tensor([[1.0, 3.0]])).sum().backward()
    assert model.linear.weight.grad[4] == 3.0 and not model.embedding.weight.grad[4].any()


def test_the_wide_part_of_fuxictr_adds_all_values_of_a_field():
    layout = Layout(("g",), (3,), (1,), (4,), 5)
    table, wide = torch.randn(4, 2), torch.randn(4, 1)
    weights = {
        TABLE.format("g"): table, f"lr_layer.{TABLE}".format("g"): wide,
        "fc.weight": torch.ones(1, 2), "fc.bias": torch.zeros(1),
    }  # fmt: skip
    changes = {"dim": 2, "block_widths": (), "linear_term": True}
    model = create("autoint_fuxictr", layout, **changes).eval()
    model.load_state_dict(from_fuxictr(weights, layout))
    found = model(torch.tensor([[2, 3, 0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(found[0], table[1:3].mean(0).sum() + wide[1:3].sum())


def test_fields_on_the_same_rows_share_a_table():
    layout = Layout(("item", "seen"), (1, 2), (1, 1), (3, 3), 4)
    table = torch.randn(3, 4)
    maps = {f"int_layers.0.{n}": torch.randn(4, 4) for n in ("W_Query", "W_key", "W_Value")}
    weights = deepctr_weights(item=table) | maps | {
        "dnn_linear.weight": torch.randn(1, 8), "out.bias": torch.zeros(1),
    }  # fmt: skip
    assert from_deepctr(weights, layout)["embedding.weight"][1:].equal(table)
    theirs = {f"embedding_dict.{name}.weight": torch.randn(3, 4) for name in ("item", "seen")}
    with pytest.raises(ValueError, match="item and seen share their rows"):
        from_deepctr(weights | theirs, layout)


def test_weights_without_a_counterpart_are_refused():
    layout = Layout(("a",), (1,), (1,), (3,), 4)
    for convert in (from_deepctr, from_fuxictr):
        with pytest.raises(ValueError, match=r"no counterpart of \['dnn.activation_layers.0.weig"):
            convert({"dnn.activation_layers.0.weight": torch.ones(1)}, layout)
    prelu = {
        TABLE.format("a"): torch.ones(3, 2), "fc.weight": torch.ones(1, 2),
        "fc.bias": torch.ones(1),
        "dnn.mlp.0.weight": torch.ones(2, 2), "dnn.mlp.0.bias": torch.ones(2),
        "dnn.mlp.1.weight": torch.ones(1), "dnn.mlp.2.weight": torch.ones(1, 2),
        "dnn.mlp.2.bias": torch.ones(1),
    }  # fmt: skip
    with pytest.raises(ValueError, match="activation with weights"):
        from_fuxictr(prelu, layout)
