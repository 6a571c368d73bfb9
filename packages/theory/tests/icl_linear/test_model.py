import pytest
import torch

from attn_theory.icl_linear import (
    CausalStack,
    ICLConfig,
    LinearRegression,
    MultiTask,
    Recipe,
    SeededLayers,
    SingleLayer,
    analyse,
    from_official,
    load_checkpoint,
    to_official,
    train,
)
from attn_theory.icl_linear.predictors import gradient_step, softmax_heads
from core_attn import record


def prompts(d=3, length=7, batch=2):
    return LinearRegression(d, length).sample(batch, generator=torch.Generator().manual_seed(0))


def test_the_query_never_sees_itself():
    layer, p = SingleLayer(ICLConfig(d=3)), prompts()
    with record(layer, "pattern") as seen:
        layer(p.context, p.query)
    assert seen["attention_layer"].shape == (2, 2, 1, 7)


def test_the_stack_is_causal_and_sees_its_own_position():
    stack, p = CausalStack(ICLConfig(d=3, layers=2)), prompts()
    with record(stack, "pattern") as seen:
        stack(p.context, p.query)
    pattern = seen["attention_layers.0"]
    assert pattern.triu(1).abs().max() == 0
    assert pattern.diagonal(dim1=-2, dim2=-1).min() > 0


def test_one_softmax_is_the_default_and_two_are_named():
    config, p = ICLConfig(d=3, layers=2), prompts()
    plain, twice = CausalStack(config), CausalStack(config, compat="official-stack")
    with torch.no_grad():  # weights of the default size hardly tell the two apart
        for parameter in plain.parameters():
            parameter.mul_(4)
    twice.load_state_dict(plain.state_dict())
    assert not plain(p.context, p.query).allclose(twice(p.context, p.query), atol=1e-4)
    with pytest.raises(ValueError, match="compat must be"):
        CausalStack(config, compat="twice")


@pytest.mark.parametrize("task", [LinearRegression(3, 9, noise=0), MultiTask(6, 9, noise=0)])
def test_without_noise_the_labels_are_linear_in_the_covariates(task):
    p = task.sample(4, dtype=torch.float64)
    assert p.x.dtype == p.y_query.dtype == torch.float64
    beta = torch.linalg.lstsq(p.x, p.y).solution
    torch.testing.assert_close((p.x_query[:, None] @ beta)[:, 0], p.y_query)


def test_the_label_asked_for_is_free_of_noise_in_several_tasks():
    asked, seen = (
        MultiTask(noise=n).sample(2, generator=torch.Generator().manual_seed(0)) for n in (0.0, 9.0)
    )
    torch.testing.assert_close(asked.y_query, seen.y_query)
    assert not asked.y.allclose(seen.y)


def test_debiasing_centres_the_covariates():
    p = prompts()
    centred = p.x - p.x.mean(1, keepdim=True)
    expected = ((centred @ p.x_query[..., None]) * p.y).mean((1, 2))
    torch.testing.assert_close(gradient_step(p, debiased=True), expected)


def test_a_structured_layer_is_the_pair_of_kernel_smoothers():
    config, p = ICLConfig(d=3, heads=2), prompts()
    layer = SingleLayer(config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for h, sign in enumerate((1, -1)):
            rows = slice(4 * h, 4 * h + 4)
            layer.attention_layer.q_proj.weight[rows] = sign * 0.2 * 2 * torch.eye(4)
            layer.attention_layer.k_proj.weight[rows, :3] = torch.eye(4)[:, :3]
            layer.attention_layer.v_proj.weight[4 * h + 3, 3] = 1
            layer.attention_layer.o_proj.weight[0, 4 * h + 3] = sign * 1.5
    expected = softmax_heads(p, torch.tensor([0.2, -0.2]), torch.tensor([1.5, -1.5]))
    torch.testing.assert_close(layer(p.context, p.query).flatten(), expected)
    report = analyse(layer)
    assert report.roles == ("+", "-") and report.two_sided
    assert report.zero_sum == 0 and report.step == pytest.approx(0.6)


def test_a_head_without_work_is_a_dummy_and_a_loaded_checkpoint_can_be_read(tmp_path):
    layer = SingleLayer(ICLConfig(d=3, heads=4))
    with torch.no_grad():
        layer.attention_layer.o_proj.weight[:, :4] = 0
    path = tmp_path / "Layer_1_Head_4_d_3_trained_model.pth"
    torch.save({"final_loss": 0.2, "training_losses": [0.3], "model": to_official(layer)}, path)
    loaded = load_checkpoint(path)
    assert isinstance(loaded, SingleLayer)
    report = analyse(loaded)
    assert report.roles[0] == "dummy" and report.label_share[0] == 0


def test_seeds_train_independently():
    config, task = ICLConfig(d=2, heads=4), LinearRegression(2, 6)
    start = SeededLayers(config, 3, generator=torch.Generator().manual_seed(0))
    p = task.sample(3, 4, generator=torch.Generator().manual_seed(1))
    gradients = []
    for change in (0.0, 1.0):
        with torch.no_grad():
            start.q[2] += change
        y = start(p.context, p.query)
        loss = (y.squeeze(2) - p.y_query).square().mean((1, 2)).sum()
        gradients.append(torch.autograd.grad(loss, start.k)[0])
    torch.testing.assert_close(gradients[0][:2], gradients[1][:2])
    assert not gradients[0][2].allclose(gradients[1][2])


def test_two_heads_and_one_seed_warn_of_the_basin():
    with pytest.warns(UserWarning, match="same sign"):
        train(ICLConfig(d=2), LinearRegression(2, 4), Recipe(steps=1, batch=2), seeds=1)


@pytest.mark.parametrize("init", ["small_id", "small_id_qk", "oppo_small_id"])
def test_small_inits_are_multiples_of_the_identity(init):
    kq = SeededLayers(ICLConfig(d=2, heads=2), 1, init=init).key_query()[0]
    off = kq - torch.diag_embed(kq.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() == 0 and kq.abs().max() > 0
    assert (kq[0, 0, 0] * kq[1, 0, 0] < 0) == (init == "oppo_small_id")


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: ICLConfig(heads=0), "heads must be at least 1"),
        (lambda: LinearRegression(length=1), "length must be at least 2"),
        (lambda: LinearRegression(noise=-0.1), "noise must be a variance >= 0"),
        (lambda: LinearRegression(rho=1.0), r"rho must be in \(-1, 1\)"),
        (lambda: MultiTask(supports=((0, 6),)), r"supports\[0\] = \(0, 6\)"),
        (lambda: SeededLayers(ICLConfig(heads=3), 1, init="oppo_small_id"), "must be even, got 3"),
        (lambda: SeededLayers(ICLConfig(), 1, init="large"), "init must be"),
        (lambda: SeededLayers(ICLConfig(), 0), "seeds must be at least 1"),
        (lambda: SingleLayer(ICLConfig(layers=2)), "one layer"),
    ],
)
def test_impossible_shapes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.refuses
def test_tokens_that_do_not_fit_are_refused():
    layer, p = SingleLayer(ICLConfig(d=3)), prompts()
    with pytest.raises(ValueError, match="z has 4, z_q has 3"):
        layer(p.context, p.query[..., :3])
    with pytest.raises(ValueError, match="one query, got 7"):
        layer(p.context, p.context)
    with pytest.raises(ValueError, match="must be finite"):
        layer(p.context * float("inf"), p.query)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    state = to_official(SingleLayer(ICLConfig(d=3)))
    key = "attention_layer.q_proj.weight"
    with pytest.raises(ValueError, match=r"H\*D rows = 7"):
        from_official(state | {key: torch.zeros(7, 4)})
    with pytest.raises(ValueError, match=r"H\*D rows = 8 .*, expected 12"):
        from_official(state, ICLConfig(d=3, heads=3))
    with pytest.raises(ValueError, match="lacks attention_layer.q_proj"):
        from_official({})
    with pytest.raises(ValueError, match="unknown entries"):
        from_official(state | {"extra": torch.zeros(1)})
    with pytest.raises(ValueError, match="unknown entries"):
        from_official(state | {"attention_layer.q_proj.bias": torch.zeros(8)})
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.pth")
