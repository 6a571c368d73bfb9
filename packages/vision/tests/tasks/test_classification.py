import pytest
import torch
from pytorch_lightning import Trainer

from attn_vision.data import Augmentation, Digits
from attn_vision.tasks import ImageClassification


def small(**changes):
    options = {"channels": 1, "image_size": 8, "patch_size": 4, "depth": 1, "lr": 4e-3}
    return ImageClassification(**options | changes)


def fit(task, epochs=2):
    trainer = Trainer(
        max_epochs=epochs, limit_train_batches=4, limit_val_batches=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu",
    )  # fmt: skip
    trainer.fit(task, datamodule=Digits())
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


def test_a_report_has_pictures_of_predictions_confusion_and_heads():
    task, data = small(depth=2).eval(), Digits(augmentation=Augmentation())
    titles = [exhibit.title for exhibit in task.figures(data)]
    assert titles == ["Predictions", "Confusion", "Attention over images", "Reach of the heads"]


def test_a_teacher_needs_a_second_head():
    with pytest.raises(ValueError, match="teacher needs a distilled variant, got 'deit_tiny'"):
        small(teacher=torch.nn.Identity())
