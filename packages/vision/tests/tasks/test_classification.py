import pytest
import torch
from pytorch_lightning import Trainer

from attn_vision import create
from attn_vision.data import Augmentation, Digits
from attn_vision.tasks import ImageClassification, Sparsification, TokenReduction
from attn_vision.tasks.token_reduction import keep_rate_at


def small(**changes):
    settings = {"patch_size": 4, "depth": 1} | changes.pop("settings", {})
    return ImageClassification(**{"lr": 4e-3, "settings": settings} | changes)


def built(task):
    """The task with its network, as for grey digits of 8x8 pixels."""
    task.build({"classes": 10, "channels": 1, "image_size": 8})
    return task


def fit(task, epochs=2, **data):
    trainer = Trainer(
        max_epochs=epochs, limit_train_batches=4, limit_val_batches=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu",
    )  # fmt: skip
    trainer.fit(task, datamodule=Digits(**data))
    return trainer


def test_the_rate_rises_then_falls_as_a_cosine():
    task = small(warmup=1, lr=8e-3, final_lr=8e-4)
    trainer = fit(task, epochs=4)
    schedule = trainer.lr_scheduler_configs[0].scheduler
    rates = [8e-3 * 64 / 512 * schedule.lr_lambdas[0](step) for step in range(17)]
    assert rates[:4] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])
    assert rates[10] == pytest.approx(5.5e-4) and rates[16] == pytest.approx(1e-4)


def test_only_matrices_decay():
    task = small()
    trainer = fit(task, epochs=1)
    decayed, plain = trainer.optimizers[0].param_groups
    assert decayed["weight_decay"] == 0.05 and plain["weight_decay"] == 0.0
    undecayed = {id(p) for p in plain["params"]}
    assert id(task.model.pos_embed) in undecayed and id(task.model.cls_token) in undecayed
    assert all(p.dim() > 1 for p in decayed["params"])


def test_mixup_and_smoothing_train():
    assert torch.isfinite(fit(small(mixup=0.8, cutmix=1.0)).callback_metrics["train/loss"])


def test_the_distillation_head_follows_the_teacher():
    class Sure(torch.nn.Module):
        def forward(self, images):
            return torch.eye(10)[torch.full((len(images),), 3)]

    task = small(variant="deit_tiny_distilled", teacher=Sure(), lr=2e-2, warmup=0)
    fit(task, epochs=8)
    images = next(iter(task.trainer.datamodule.test_dataloader()))[0]
    class_head, teacher_head = task.model.eval().head_scores(images)
    assert (teacher_head.argmax(-1) == 3).all() and not (class_head.argmax(-1) == 3).all()
    assert not [name for name in task.state_dict() if "teacher" in name]


def test_a_teacher_teaches_an_evit():
    class Sure(torch.nn.Module):
        def forward(self, images):
            return torch.eye(10)[torch.full((len(images),), 3)]

    settings = {"patch_size": 4, "depth": 2, "distilled": True, "keep_rates": [0.5, 1.0]}
    task = TokenReduction(settings=settings, teacher=Sure(), start=0, length=0, lr=2e-2, warmup=0)
    fit(task, epochs=8)
    images = next(iter(task.trainer.datamodule.test_dataloader()))[0]
    _, teacher_head = task.model.eval().head_scores(images)
    assert (teacher_head.argmax(-1) == 3).all()


def test_a_report_has_pictures_of_predictions_confusion_and_heads():
    task, data = built(small(settings={"depth": 2})).eval(), Digits(augmentation=Augmentation())
    data.setup()
    titles = [exhibit.title for exhibit in task.figures(data)]
    assert titles == ["Predictions", "Confusion", "Attention over images", "Reach of the heads"]


def test_a_teacher_needs_a_second_head():
    with pytest.raises(ValueError, match="teacher needs a distilled variant, got 'deit_tiny'"):
        built(small(teacher=torch.nn.Identity()))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_last_image_of_an_odd_batch_is_not_mixed(batch):
    task = built(small(mixup=5.0, smoothing=0.0))
    images, labels = torch.randn(batch, 1, 8, 8), torch.arange(batch)
    mixed, targets = task.targets(images, labels)
    assert mixed[-1].equal(images[-1]) and targets[-1, batch - 1] == 1
    torch.testing.assert_close(targets.sum(1), torch.ones(batch))


def test_an_odd_batch_trains_with_mixup():
    assert torch.isfinite(fit(small(mixup=0.8), batch_size=31).callback_metrics["train/loss"])


def test_the_network_is_built_once_the_data_are_known():
    with pytest.raises(ValueError, match="the network is built once the data are known"):
        small().example_inputs()


@pytest.mark.parametrize("name", ["classes", "channels", "image_size"])
def test_sizes_come_from_the_data(name):
    with pytest.raises(ValueError, match=f"settings: {name} comes from the data"):
        small(settings={name: 3})


def test_the_keep_rate_falls_as_half_a_cosine():
    rates = [
        keep_rate_at(step, 0.5, steps_per_epoch=10, start=1, length=2) for step in (0, 9, 20, 30)
    ]
    assert rates == pytest.approx([1.0, 1.0, 0.75, 0.5])


def test_an_evit_is_evaluated_at_the_rate_that_it_is_trained_for():
    task = TokenReduction(0.5, settings={"patch_size": 4, "depth": 3, "keep_rates": [1, 0.7, 0.9]})
    assert task.check_settings().keep_rates == (1.0, 0.5, 0.5)
    with pytest.raises(ValueError, match="variant must be an EViT, got 'deit_tiny'"):
        TokenReduction(variant="deit_tiny")


@pytest.mark.parametrize("other", [{"depth": 2}, {"classes": 7}])
def test_a_dense_model_of_another_shape_or_for_other_classes_is_refused(other, tmp_path):
    settings = {"dim": 12, "heads": 3, "patch_size": 1, "depth": 1}
    sizes = {"classes": 10, "channels": 1, "image_size": 8}
    dense = create("deit_tiny", **settings | sizes | other)
    torch.save(dense.state_dict(), tmp_path / "dense.pth")
    task = built(Sparsification(str(tmp_path / "dense.pth"), settings=settings))
    with pytest.raises(ValueError, match="not the weights of this dense model: "):
        task.start_from(str(tmp_path / "dense.pth"))


def test_both_phases_of_a_sparsification_warm_up_and_fall():
    settings = {"dim": 12, "heads": 3, "patch_size": 1, "depth": 1}
    task = Sparsification("none", 3, settings=settings, lr=1e-3, final_lr=1e-4, warmup=1)
    trainer = fit(task, epochs=7, batch_size=8)
    schedule = trainer.lr_scheduler_configs[0].scheduler
    groups = trainer.optimizers[0].param_groups
    predictor, backbone = (
        [group["initial_lr"] * rate(step) for step in range(29)]
        for group, rate in (
            (groups[0], schedule.lr_lambdas[0]), (groups[-1], schedule.lr_lambdas[-1]),
        )
    )  # fmt: skip
    # 4 steps an epoch: the first phase ends at step 12, the second at 28
    assert predictor[3] == pytest.approx(3e-4) and predictor[12] == pytest.approx(2e-4)
    assert backbone[12] == pytest.approx(2.5e-4) and backbone[15] == pytest.approx(1e-3)
    assert max(backbone) == pytest.approx(1e-3) and backbone[28] == pytest.approx(1e-4)


def test_the_first_phase_of_a_sparsification_moves_predictors_only(tmp_path):
    torch.manual_seed(0)
    dense = built(small(settings={"dim": 24, "heads": 3, "patch_size": 1, "depth": 2}))
    file = tmp_path / "dense.pth"
    torch.save({"model": dense.model.state_dict()}, file)
    settings = {"dim": 24, "heads": 3, "patch_size": 1, "depth": 2}
    for phase, epochs in ((1, 1), (2, 0)):
        task = Sparsification(str(file), epochs, settings=settings, lr=1e-3, predictor_lr=1e-2)
        task.start_from(str(file))
        fit(task, epochs=1, batch_size=8)
        old, new = dense.model.state_dict(), task.model.state_dict()
        moved = {name for name in old if not new[name].equal(old[name])}
        assert bool(moved) == (phase == 2)
        assert all(x.equal(old[name]) for name, x in task.teacher.state_dict().items())


@pytest.mark.parametrize("variant,settings", [
    ("deit_tiny", {"patch_size": 3}), ("halonet_h0", {"block": 7, "strides": [1, 1, 1, 2]}),
])  # fmt: skip
def test_settings_that_fit_other_images_than_the_usual_ones_are_taken(variant, settings):
    ImageClassification(variant, settings)
    with pytest.raises(ValueError, match="no setting 'nonsense'"):
        ImageClassification(variant, {"nonsense": 1})
