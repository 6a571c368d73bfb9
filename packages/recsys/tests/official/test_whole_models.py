"""Whole models of FuxiCTR and DeepCTR-Torch with random weights, where these are installed."""

import pytest
import torch
from torch import nn

from attn_recsys.layout import Layout
from attn_recsys.models import VARIANTS, AutoInt, AutoIntConfig, BaselineConfig
from attn_recsys.official import from_deepctr, from_fuxictr

SIZES = {"a": 5, "b": 7, "c": 4, "g": 6}
ORDERS = [("a", "b", "c"), ("n", "c", "m", "a"), ("b", "m", "a", "n"), ("c", "a", "n", "g")]


def layout_of(names, width=3):
    """Numerical fields n and m, multi-valued g, the others categorical; tables not in order."""
    firsts, start = {}, 1
    for name in sorted(names, reverse=True):
        firsts[name], start = start, start + SIZES.get(name, 1)
    return Layout(
        names,
        tuple(width if name == "g" else 1 for name in names),
        tuple(firsts[name] for name in names),
        tuple(SIZES.get(name, 1) for name in names),
        start,
        tuple(name for name in names if name in "mn"),
    )


def rows(layout, size=9):
    """Their ids (0 for numbers, and the padding of g) and values, for each slot."""
    torch.manual_seed(1)
    columns, values = [], []
    for name in layout.names:
        if name in layout.numerical:
            columns.append(torch.zeros(size, 1, dtype=torch.long))
            values.append(torch.randn(size, 1))
        elif name == "g":
            there = torch.arange(3) < torch.randint(1, 4, (size, 1))
            columns.append(torch.randint(1, SIZES[name], (size, 3)) * there)
            values.append(there.float())
        else:
            columns.append(torch.randint(SIZES[name], (size, 1)))
            values.append(torch.ones(size, 1))
    return torch.cat(columns, 1), torch.cat(values, 1)


def logits_of_ours(convert, weights, layout, config, ids, value):
    model = AutoInt(layout, config).eval()
    model.load_state_dict(convert(weights, layout, dropout=config.deep_dropout > 0))
    widths = torch.tensor(layout.widths)
    return model(ids + torch.tensor(layout.firsts).repeat_interleave(widths), value)


def randomised(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.is_floating_point():
                x.uniform_(0.5, 1.5) if "var" in name else x.normal_(std=0.4)
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    return model.eval()


def deepctr(layout, config):
    """DeepCTR-Torch's model, and its logits as a function of ids and values by slot."""
    inputs = pytest.importorskip("deepctr_torch.inputs")
    from deepctr_torch.models import AutoInt

    columns = []
    for name in layout.names:
        if name in layout.numerical:
            columns.append(inputs.DenseFeat(name))
            continue
        column = inputs.SparseFeat(name, SIZES[name], embedding_dim=config.dim)
        columns.append(inputs.VarLenSparseFeat(column, 3, "mean") if name == "g" else column)
    model = AutoInt(
        columns, columns, att_layer_num=len(config.block_widths), att_head_num=config.heads,
        att_res=config.residual == "linear", dnn_hidden_units=config.deep_widths,
        dnn_use_bn=config.deep_norm, dnn_dropout=config.deep_dropout, task="regression",
    )  # fmt: skip
    numbers = torch.tensor([name in layout.numerical for name in layout.slot_names()])
    return randomised(model), lambda ids, value: model(torch.where(numbers, value, ids.float()))


def fuxictr_fields(layout, config):
    """A feature map of the layout."""
    features = pytest.importorskip("fuxictr.features")
    fields = features.FeatureMap("whole", "/nowhere")
    for name in layout.names:
        spec = {"source": "", "type": "numeric"}
        if name == "g":
            encoder = "layers.MaskedAveragePooling()"
            spec |= {"type": "sequence", "max_len": 3, "padding_idx": 0, "feature_encoder": encoder}
        elif name not in layout.numerical:
            spec["type"] = "categorical"
        fields.features[name] = spec | {"vocab_size": SIZES.get(name, 0)}
    fields.num_fields, fields.default_emb_dim = layout.fields, config.dim
    return fields


FITTING = {
    "task": "regression", "verbose": 0, "model_root": "/nowhere", "metrics": ["AUC"],
    "optimizer": "adam", "loss": "binary_crossentropy",
}  # fmt: skip


def fuxictr(layout, config):
    """FuxiCTR's model, likewise; the wheel lacks its models: put the repository on PYTHONPATH."""
    found = pytest.importorskip("model_zoo.AutoInt.src")
    model = found.AutoInt(
        fuxictr_fields(layout, config), embedding_dim=config.dim,
        dnn_hidden_units=list(config.deep_widths),
        attention_layers=len(config.block_widths), num_heads=config.heads,
        attention_dim=config.block_widths[0], net_dropout=config.deep_dropout,
        batch_norm=config.deep_norm, layer_norm=config.norm == "pre_relu", use_scale=config.scale,
        use_wide=config.linear_term, use_residual=config.residual == "identity", **FITTING,
    )  # fmt: skip

    def forward(ids, value):
        numbers = {name for name in layout.names if name in layout.numerical}
        pairs = zip(layout.names, ids.split(layout.widths, 1), value.split(layout.widths, 1),
                    strict=True)  # fmt: skip
        batch = {
            name: v[:, 0] if name in numbers else i if name == "g" else i[:, 0]
            for name, i, v in pairs
        }
        return model(batch)["y_pred"]

    return randomised(model), forward


def changed(preset, **changes):
    return AutoIntConfig(**(vars(VARIANTS[f"autoint_{preset}"]) | {"dim": 6} | changes))


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize(
    "changes",
    [
        {"deep_widths": (5, 4)},
        {"deep_widths": (5, 4, 3), "deep_norm": True, "deep_dropout": 0.3},
        {"deep_widths": (5,), "residual": "none", "heads": 3, "block_widths": (6,)},
        {"deep_widths": (5, 4), "block_widths": ()},
        {"deep_widths": ()},
    ],
)
def test_a_model_of_deepctr_torch_is_reproduced(order, changes):
    config = changed("deepctr_torch", **({"block_widths": (6, 6)} | changes))
    layout = layout_of(order)
    model, forward = deepctr(layout, config)
    batch = rows(layout)
    ours = logits_of_ours(from_deepctr, model.state_dict(), layout, config, *batch)
    torch.testing.assert_close(ours, forward(*batch)[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize(
    "changes",
    [
        {"linear_term": True, "deep_widths": (5, 4)},
        {"deep_widths": (5, 4), "deep_norm": True, "deep_dropout": 0.3, "norm": "pre_relu"},
        {"scale": True, "heads": 4},
        {"residual": "none", "deep_widths": (5, 4), "deep_norm": True},
    ],
)
def test_a_model_of_fuxictr_is_reproduced(order, changes):
    config = changed("fuxictr", **({"block_widths": (8, 8)} | changes))
    layout = layout_of(order)
    model, forward = fuxictr(layout, config)
    batch = rows(layout)
    ours = logits_of_ours(from_fuxictr, model.state_dict(), layout, config, *batch)
    torch.testing.assert_close(ours, forward(*batch)[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("widths", [(7,), (), (5, 4)])
@pytest.mark.parametrize("chunks", [1, 2])
def test_the_finalmlp_of_fuxictr_is_reproduced(widths, chunks):
    found = pytest.importorskip("model_zoo.FinalMLP.src")
    layout = layout_of(("a", "b", "c"))
    config = BaselineConfig(
        "finalmlp", dim=3, deep_widths=(8, 6), gate_widths=widths, chunks=chunks
    )
    theirs = randomised(
        found.FinalMLP(
            fuxictr_fields(layout, config), embedding_dim=3, mlp1_hidden_units=[8, 6],
            mlp2_hidden_units=[8, 6], fs_hidden_units=list(widths), num_heads=chunks, **FITTING,
        )
    )  # fmt: skip
    ours = config.build(layout).eval()
    pairs = [
        *zip(ours.streams, (theirs.mlp1, theirs.mlp2), strict=True),
        *zip(ours.gates, (theirs.fs_module.fs1_gate, theirs.fs_module.fs2_gate), strict=True),
        (ours.first_out, theirs.fusion_module.w_x), (ours.second_out, theirs.fusion_module.w_y),
    ]  # fmt: skip
    with torch.no_grad():
        tables = theirs.embedding_layer.embedding_layer.embedding_layers
        for name, first, size in zip(layout.names, layout.firsts, layout.sizes, strict=True):
            ours.embedding.weight[first : first + size] = tables[name].weight
        for one, other in pairs:
            for part, source in zip(linears(one), linears(other), strict=True):
                part.load_state_dict(source.state_dict())
        ours.fusion.copy_(theirs.fusion_module.w_xy.view_as(ours.fusion))
        for gate, name in zip(ours.gates, ("fs1_ctx_bias", "fs2_ctx_bias"), strict=True):
            gate.constant.copy_(getattr(theirs.fs_module, name))
        ids, value = rows(layout)
        expected = theirs(dict(zip(layout.names, ids.T, strict=True)))["y_pred"][:, 0]
        found = ours(ids + torch.tensor(layout.firsts), value)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def linears(model):
    return [part for part in model.modules() if isinstance(part, nn.Linear)]
