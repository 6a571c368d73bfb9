import pytest
import torch

from attn_recsys.interactions import interaction_strengths
from attn_recsys.layout import Layout
from attn_recsys.models import VARIANTS, AutoInt, AutoIntConfig, create
from attn_recsys.models.autoint import BlockConfig, InteractingBlock
from core_attn.taps import record

LAYOUT = Layout(("a", "b", "g", "n"), (1, 1, 3, 1), (1, 6, 10, 20), (5, 4, 10, 1), 21, ("n",))


def batch(size=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.cat(
        [
            torch.randint(first, first + n, (size, width), generator=generator)
            for first, n, width in zip(LAYOUT.firsts, LAYOUT.sizes, LAYOUT.widths, strict=True)
        ],
        1,
    )
    value = torch.ones(size, LAYOUT.slots)
    value[:, 5] = torch.randn(size, generator=generator)
    value[0, 2:5] = 0  # a multi-valued field without values
    value[1, 0] = 0
    return index, value


@pytest.mark.parametrize("name", VARIANTS)
def test_every_model_gives_finite_logits_and_gradients(name):
    torch.manual_seed(0)
    model = create(name, LAYOUT)
    logits = model(*batch())
    logits.sum().backward()
    assert logits.shape == (7,) and logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_saved_folder_gives_the_model_back(tmp_path):
    model = AutoInt(LAYOUT, AutoIntConfig(block_widths=(16, 8), deep_widths=(5,))).eval()
    model.save_pretrained(tmp_path)
    again = AutoInt.from_pretrained(tmp_path)
    assert (again.layout, again.config) == (model.layout, model.config)
    assert torch.equal(again.eval()(*batch()), model(*batch()))


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_do_not_influence_each_other(name):
    model = create(name, LAYOUT).eval()
    index, value = batch()
    torch.testing.assert_close(
        model(index, value)[2:3], model(index[2:3], value[2:3]), atol=1e-5, rtol=1e-4
    )


def test_a_missing_field_and_an_empty_list_are_the_zero_vector():
    fields = create("autoint", LAYOUT).embedding(*batch())
    assert fields[0, 2].eq(0).all() and fields[1, 0].eq(0).all() and fields[2].ne(0).any(1).all()


def test_presets_differ_as_the_comparison_of_implementations_says():
    official, paper = VARIANTS["autoint"], VARIANTS["autoint_paper"]
    assert (official.qkv_activation, official.scale, official.norm) == ("relu", True, "post")
    assert (paper.qkv_activation, paper.qkv_bias, paper.scale) == ("none", False, False)
    counted = {
        name: sum(p.numel() for p in AutoInt(Layout.plain(39, 40), config).blocks.parameters())
        for name, config in (("official", official), ("paper", paper))
    }
    assert counted == {"official": 38_016, "paper": 36_864}


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("residual", ["linear_relu", "linear", "identity", "none"])
@pytest.mark.parametrize("norm", ["post", "pre_relu", "none"])
@pytest.mark.parametrize("widths", [(8, 8), (6, 8)])
def test_watched_and_unwatched_blocks_agree(activation, residual, norm, widths):
    torch.manual_seed(1)
    config = BlockConfig(qkv_activation=activation, residual=residual, norm=norm, norm_eps=1e-5)
    block = InteractingBlock(*widths, config)
    results = []
    for watched in (False, True):
        x = torch.randn(4, 5, widths[0], generator=torch.Generator().manual_seed(2))
        x.requires_grad_()
        block.zero_grad()
        if watched:
            with record(block, "pattern") as seen:
                y = block(x)
            assert seen[""].sum(-1).allclose(torch.ones(4, 2, 5))
        else:
            y = block(x)
        (y * torch.arange(8.0)).sum().backward()
        results.append([y, x.grad, *(p.grad.clone() for p in block.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_attention_dropout_acts_in_training_only():
    config = AutoIntConfig(block_widths=(8,), attention_dropout=0.5, dim=4)
    model = AutoInt(LAYOUT, config)
    model.train()
    assert not model(*batch()).equal(model(*batch()))
    model.eval()
    assert model(*batch()).equal(model(*batch()))


def test_fields_whose_effects_add_up_do_not_interact_and_those_multiplied_do():
    index, value = batch(64)
    rows = {"index": index, "value": value, "label": torch.zeros(64)}
    assert interaction_strengths(create("lr", LAYOUT), rows).max() < 1e-5
    model = create("fm", LAYOUT)
    torch.nn.init.normal_(model.embedding.weight)
    with torch.no_grad():
        model.embedding.weight[6:20] = 0  # leaves the fields a and n
    strengths = interaction_strengths(model, rows)
    assert strengths[0, 3] > 0.1
    strengths[0, 3] = strengths[3, 0] = 0
    assert strengths.max() < 1e-5


@pytest.mark.parametrize(("widths", "expected"), [(None, [6]), ((), []), ((5, 4), [5, 4])])
def test_the_gates_of_finalmlp_have_the_widths_asked_for(widths, expected):
    contexts = (LAYOUT.names[:2], ())
    model = create("finalmlp", LAYOUT, dim=3, gate_widths=widths, contexts=contexts)
    first, second = (
        [x.out_features for x in gate.map if isinstance(x, torch.nn.Linear)] for gate in model.gates
    )
    flat = LAYOUT.fields * 3
    assert first == [*expected, flat] and second == [*([3] if widths is None else expected), flat]
    assert torch.isfinite(model(*batch())).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_widths": (63,)}, "block width 63 is not divisible by heads 2"),
        ({"attention_dropout": 1.0}, r"attention_dropout must be in \[0, 1\)"),
        ({"numerical": "deep_only"}, "needs a deep part"),
        ({"width": 3}, "autoint has no setting 'width'"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        create("autoint", LAYOUT, **change)


@pytest.mark.refuses
def test_bad_ids_and_values_are_refused():
    index, value = batch()
    model = create("autoint", LAYOUT)
    with pytest.raises(TypeError, match="must be int32 or int64 ids, got torch.float32"):
        model(index.float(), value)
    with pytest.raises(ValueError, match=r"must be \(batch, 6\)"):
        model(index[:, :4], value[:, :4])
    index[3, 1] = 99
    with pytest.raises(ValueError, match=r"field b: index 99 outside .*vocabulary of size 4\)"):
        LAYOUT.check(index, value)
    index, value = batch()
    value[4, 5] = float("nan")
    with pytest.raises(ValueError, match="field n has nan in row 4; set missing='zero'"):
        LAYOUT.check(index, value)
