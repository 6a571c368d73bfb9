import dataclasses

import pytest
import torch

from attn_speech.models import WaveNetConfig, create
from attn_speech.models.conditioning import QRNN
from attn_speech.models.distributions import Distribution, mu_law, mu_law_inverse

TINY = WaveNetConfig(layers=4, stacks=2, residual=4, gate=6, skip=5, mels=3, scales=(2, 2), pad=1)


def test_logistic_bins_hold_all_probability():
    levels = 256
    output = Distribution("logistic", 6, levels=levels)
    torch.manual_seed(0)
    y = torch.randn(1, 6, 1) - 1.0
    x = torch.linspace(-1, 1, levels)[:, None]
    total = (-output.cost(y.expand(levels, -1, -1), x)).exp().sum()
    assert total == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("channels", [2, 6])
def test_gaussian_density_integrates_to_one(channels):
    torch.manual_seed(0)
    output = Distribution("gaussian", channels)
    x = torch.linspace(-9, 9, 20001)[:, None]
    p = (-output.cost(torch.randn(1, channels, 1).expand(len(x), -1, -1), x)).exp()
    assert float(p.sum() * 18 / 20000) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("kind", "channels"), [("logistic", 3), ("gaussian", 2)])
def test_samples_follow_their_distribution(kind, channels):
    output = Distribution(kind, channels)
    y = torch.tensor([[0.0, 0.1, -3.0][-channels:]]).expand(20000, -1)
    x = output.sample(y, output.noise(20000, torch.Generator().manual_seed(0)))
    spread = {"logistic": torch.pi / 3**0.5, "gaussian": 1.0}[kind] * torch.tensor(-3.0).exp()
    assert float(x.mean()) == pytest.approx(0.1, abs=3e-3)
    assert float(x.std()) == pytest.approx(float(spread), rel=0.03)


def test_mu_law_there_and_back():
    x = torch.linspace(-1, 1, 1001)
    for classes in (16, 256):
        index = mu_law(x, classes)
        assert index.min() == 0 and index.max() == classes - 1
        assert mu_law(mu_law_inverse(index, classes), classes).equal(index)
    assert (mu_law_inverse(mu_law(x, 256), 256) - x).abs().max() < 0.03


def test_the_receptive_field_is_that_of_the_gradient():
    model = TINY.build().eval()
    x = torch.zeros(1, 1, 32, requires_grad=True)
    model(x, torch.randn(1, 3, 10))[0, :, -1].sum().backward()
    reached = x.grad[0, 0].nonzero()[:, 0]
    assert 32 - int(reached.min()) == TINY.receptive_field == 13


def test_sizes_of_the_recipe():
    assert create("wavenet_mol").config.receptive_field == 505
    for name in ("wavenet_mulaw256", "wavenet_gaussian", "wavenet_paper", "wavenet_tiny"):
        assert create(name).config.hop in (200, 256)


def test_qrnn_follows_its_recurrence():
    layer, x = QRNN(3, 2), torch.randn(1, 3, 5)
    z, f, o = layer.gates(torch.nn.functional.pad(x, (1, 0))).chunk(3, 1)
    c = torch.zeros(1, 2)
    for t in range(5):
        f_t, z_t = f[..., t].sigmoid(), z[..., t].tanh()
        c = f_t * c + (1 - f_t) * z_t
        torch.testing.assert_close(layer(x)[..., t], o[..., t].sigmoid() * c)


def test_the_papers_conditioning_repeats_frames():
    config = dataclasses.replace(TINY, conditioning="qrnn", scales=(7,), pad=0, qrnn_width=4)
    cond = config.build().conditions(torch.randn(1, 3, 5), 35)
    assert cond.shape == (1, 4, 35) and cond[..., 7:8].expand(-1, -1, 7).equal(cond[..., 7:14])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": 0}, "kernel must be at least 1, got 0"),
        ({"residual": 0}, "residual must be at least 1, got 0"),
        ({"pad": -1}, "pad must be at least 0, got -1"),
        ({"conditioning": "rnn"}, "one of conv_in, upsample, qrnn, given, got 'rnn'"),
        ({"gate": 7}, "gate must be even"),
        ({"stacks": 3}, "layers 4 is not divisible by stacks 3"),
        ({"out_channels": 10}, "a multiple of 3, got 10"),
        ({"distribution": "gaussian", "out_channels": 4}, "2 or a multiple of 3, got 4"),
        ({"onehot": True}, "onehot needs distribution softmax"),
        ({"freq_kernel": 2}, "freq_kernel must be odd"),
        ({"activation": "Nope"}, "no activation 'Nope'"),
        ({"speakers": 3}, "need a speaker_dim"),
    ],
)
def test_configurations_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes).build()


def test_inputs_refused():
    model = TINY.build()
    x, mels = torch.zeros(1, 1, 50), torch.randn(1, 3, 10)
    with pytest.raises(ValueError, match=r"mels give 32 samples \(8 frames x hop 4"):
        model(x, mels)
    with pytest.raises(ValueError, match="mels have 2 frames, they need more than the 1 on"):
        model(x, mels[..., :2])
    with pytest.raises(ValueError, match="needs mels"):
        model(x)
    with pytest.raises(ValueError, match="takes no speaker"):
        model(x[..., :32], mels, torch.tensor([0]))
    with pytest.raises(ValueError, match="needs speaker"):
        dataclasses.replace(TINY, speaker_dim=2).build()(x[..., :32], mels)
    with pytest.raises(ValueError, match=r"must be in 0 \.\.\. 1, got \[5\]"):
        who = dataclasses.replace(TINY, speaker_dim=2, speakers=2).build()
        who(x[..., :32], mels, torch.tensor([5]))
    with pytest.raises(ValueError, match=r"audio must be in \[-1, 1\]"):
        model.cost(torch.full((1, 32), 2.0), mels)
