import pytest
import torch

from attn_speech.models import WaveNetConfig
from attn_speech.models.generation import KERNEL, Generation, generate, stream

ENGINES = [
    False,
    pytest.param(
        True, marks=pytest.mark.skipif(bool(KERNEL.missing()), reason=str(KERNEL.missing()))
    ),
]
CONFIGS = {
    "logistic": WaveNetConfig(
        layers=6, stacks=2, residual=10, gate=14, skip=70, mels=5, scales=(2, 3), out_channels=9
    ),
    "softmax": WaveNetConfig(
        layers=4, stacks=1, residual=6, gate=10, skip=7, kernel=2, mels=5, scales=(2, 2), pad=1,
        conditioning="upsample", freq_kernel=3, activation="LeakyReLU", speaker_dim=3, speakers=4,
        distribution="softmax", out_channels=70, onehot=True,
    ),
    "mulaw_scalar": WaveNetConfig(
        layers=2, stacks=1, residual=6, gate=10, skip=7, mels=0, distribution="softmax",
        out_channels=16,
    ),
    "gaussian": WaveNetConfig(
        layers=3, stacks=1, residual=6, gate=10, skip=7, mels=0, distribution="gaussian",
        out_channels=2,
    ),
    "gaussians_qrnn": WaveNetConfig(
        layers=3, stacks=3, residual=6, gate=130, skip=7, mels=5, distribution="gaussian",
        out_channels=6, conditioning="qrnn", scales=(6,), qrnn_width=4, speaker_dim=2,
    ),
}  # fmt: skip


def inputs(config, frames=9, batch=3):
    torch.manual_seed(0)
    frames_given = frames + 2 * config.margin
    mels = torch.randn(batch, config.mels, frames_given) if config.mels else None
    who = None
    if config.speaker_dim:
        who = torch.tensor([3, 0, 2]) if config.speakers else torch.randn(batch, 2)
    return mels, who, frames * config.hop if config.mels else 40


@pytest.mark.parametrize("native", ENGINES)
@pytest.mark.parametrize("name", CONFIGS)
def test_cached_steps_equal_the_parallel_form(name, native):
    config = CONFIGS[name]
    mels, who, time = inputs(config)
    model = config.build().eval()
    x, target = model.given(torch.rand(3, time) * 2 - 1)
    with torch.no_grad():
        whole = model(x, mels, who)
    run = Generation(model, mels, who, time, batch=3, native=native)
    noise = torch.stack([config.output.noise(time, torch.Generator())] * 3, 1)
    parts = [run.advance(n, noise[:n], target[:, s : s + n]) for s, n in ((0, 7), (7, time - 7))]
    y = torch.cat([part.y for part in parts], -1)
    torch.testing.assert_close(y, whole, rtol=1e-4, atol=1e-5)
    expected = config.output.sample(whole[..., 3], noise[3])
    torch.testing.assert_close(parts[0].x[:, 3], expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("native", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_drawn_in_float32(dtype, native):
    config = CONFIGS["gaussians_qrnn"]
    mels, who, _ = inputs(config)
    model = config.build().eval().to(dtype)
    drawn = generate(model, mels.to(dtype), who.to(dtype), seeds=[0, 1, 2], native=native)
    same = generate(model.float(), mels.to(dtype).float(), who.to(dtype).float(), seeds=[0, 1, 2],
                    native=native)  # fmt: skip
    torch.testing.assert_close(drawn, same, rtol=0, atol=1e-4 if dtype == torch.float64 else 0.1)


@pytest.mark.parametrize("native", ENGINES)
def test_a_row_depends_on_its_seed_alone_and_pieces_make_up_the_whole(native):
    config = CONFIGS["logistic"]
    mels, _, _ = inputs(config, frames=200)
    model, state = config.build().eval(), torch.random.get_rng_state()
    audio = generate(model, mels, seeds=[5, 6, 7], native=native)
    assert audio.shape == (3, 1200) and audio.abs().max() <= 1
    alone = generate(model, mels[1:2], seeds=[6], native=native)
    torch.testing.assert_close(audio[1:2, :50], alone[:, :50], rtol=1e-3, atol=1e-3)
    assert audio.equal(torch.cat(list(stream(model, mels, seeds=[5, 6, 7], native=native)), 1))
    assert torch.random.get_rng_state().equal(state)


def test_generation_is_refused_in_training_and_for_other_rows():
    config = CONFIGS["logistic"]
    mels, _, _ = inputs(config)
    model = config.build()
    with pytest.raises(ValueError, match="eval mode"):
        generate(model, mels, seeds=[0, 1, 2])
    with pytest.raises(ValueError, match="2 seeds for 3 rows"):
        generate(model.eval(), mels, seeds=[0, 1])
    with pytest.raises(ValueError, match="how many steps"):
        generate(CONFIGS["gaussian"].build().eval(), seeds=[0])
