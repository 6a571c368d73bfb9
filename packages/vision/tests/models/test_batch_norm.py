import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from attn_vision.models import create
from attn_vision.models.batch_norm import BatchNorm2d, SyncBatchNorm, synchronized

MODELS = {
    "dhvt_tiny": {"image_size": 16, "dim": 16, "depth": 1},
    "halonet_h0": {
        "image_size": 32, "dims": (8, 16), "depths": (1, 1), "widths": (8, 8), "strides": (1, 2),
        "kinds": ("h", "c"), "heads": 2, "block": 4, "halo": 1, "stem_dim": 8, "final_dim": 8,
    },
    "tic_tiny": {
        "image_size": 16, "dims": (8, 16), "depths": (1, 1), "stem_dim": 4, "heads": (2, 4),
        "dilations": (1, 1), "mlp_ratios": (2, 2), "kernel": 3,
    },
}  # fmt: skip


def built(name):
    torch.manual_seed(0)
    return create(name, classes=3, **MODELS[name])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_activation_checkpointing_updates_statistics_once(name, reentrant):
    plain, again = built(name).train(), built(name).train()
    (x,) = plain.example_inputs(2)
    plain(x).square().sum().backward()
    checkpoint(again, x.requires_grad_(), use_reentrant=reentrant).square().sum().backward()
    for (key, want), got in zip(
        plain.state_dict().items(), again.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(got, want, msg=key)
    for p, q in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad)


@pytest.mark.parametrize("name", MODELS)
def test_synchronized_norms_have_the_same_weights_and_keep_the_activations(name):
    model = built(name)
    model.train()(*model.example_inputs(4))
    (x,), before = model.eval().example_inputs(2), [*model.parameters()]
    wanted = model(x)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(isinstance(m, BatchNorm2d) for m in norms)
    synchronized(model)
    assert sum(isinstance(m, SyncBatchNorm) for m in model.modules()) == len(norms)
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    assert model(x).equal(wanted)
    trainers = built(name).eval()  # converted as the flag of the trainer does
    trainers.load_state_dict(model.state_dict())
    assert nn.SyncBatchNorm.convert_sync_batchnorm(trainers)(x).equal(wanted)


def test_a_single_value_per_channel_is_refused_in_training():
    with pytest.raises(ValueError, match="needs more than 1 value per channel in training"):
        BatchNorm2d(3)(torch.randn(1, 3, 1, 1))
    assert BatchNorm2d(3).eval()(torch.randn(1, 3, 1, 1)).shape == (1, 3, 1, 1)
