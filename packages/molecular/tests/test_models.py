import pytest
import torch
from ase.build import molecule

from attn_molecular import VARIANTS, Batch, EScAIPConfig, EScAIPV1Config, create
from attn_molecular.official import gradient_from_direct
from attn_molecular.testing import untrained

COUNTS = {
    "escaip_small": 3.9, "escaip_medium": 43.7, "escaip_l10": 71.0, "escaip_h640": 65.9,
    "escaip_large": 211.8, "escaip_v1_83m": 83.3, "escaip_v1_146m": 146.2,
    "escaip_v1_312m": 311.8, "escaip_v1_45m": 43.4, "escaip_v1_mptrj": 54.9, "escaip_v1_4m": 3.9,
}  # fmt: skip
DIRECT = {"escaip_medium": 56.0, "escaip_l10": 88.6, "escaip_h640": 85.2, "escaip_large": 271.6}


def millions(config):
    with torch.device("meta"):
        return sum(p.numel() for p in config.build().parameters()) / 1e6


@pytest.mark.parametrize("name", COUNTS)
def test_named_sizes_have_the_official_counts(name):
    assert millions(VARIANTS[name]) == pytest.approx(COUNTS[name], abs=0.05)


@pytest.mark.parametrize("name", DIRECT)
def test_direct_models_have_the_official_counts(name):
    from dataclasses import replace

    config = replace(VARIANTS[name], forces="direct")
    assert millions(config) == pytest.approx(DIRECT[name], abs=0.05)


BAD = {
    "heads": ({"dim": 65}, "dim 65 is not divisible by heads 4"),
    "frequencies": ({"frequencies": (3, 2)}, "sum to 5, which must be dim / heads = 16"),
    "angle": ({"angle": "bias", "angle_size": 5}, "angle_size = order_size, got 5 and 10"),
    "basis": ({"basis": "silu"}, "basis must be gaussian"),
    "cutoff": ({"cutoff": 0.0}, "cutoff must be positive"),
    "neighbors": ({"neighbors": 0}, "neighbors must be at least 1"),
    "dropout": ({"dropout": 1.0}, "dropout must be in"),
    "name": ({"colour": 1}, "no setting 'colour'"),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_do_not_fit_are_named(case):
    change, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        create("escaip_tiny", **change)


OPTIONS = [
    {"angle": "scalar"}, {"angle": "bias", "angle_dim": 3}, {"graph_attention": True},
    {"message_gate": True}, {"frequencies": None}, {"norm": "layer"}, {"norm": "none"},
    {"basis": "sigmoid"}, {"basis": "linear_sigmoid"}, {"activation": "smelu"},
    {"activation": "star_relu"}, {"low_memory": False}, {"soft": False}, {"envelope": False},
    {"ffn_width": 0, "readout_width": 0, "output_width": 0}, {"global_readout": True},
]  # fmt: skip


@pytest.mark.parametrize("change", OPTIONS, ids=str)
@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_every_option_trains(change, forces):
    network = untrained(forces=forces, **change).network.train()
    seen = network(Batch.from_atoms([molecule("CH4"), molecule("H2O")]))
    (seen.energy.sum() + seen.forces.square().sum()).backward()
    missing = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_dropout_and_skipped_branches_act_in_training_only():
    network = untrained(dropout=0.2, attention_dropout=0.2, drop_path=0.3).network
    batch = Batch.from_atoms([molecule("CH4"), molecule("H2O")])
    torch.manual_seed(0)
    calm = [network.eval()(batch).energy for _ in range(2)]
    wild = [network.train()(batch).energy for _ in range(2)]
    assert torch.equal(*calm) and not torch.equal(*wild)


@pytest.mark.parametrize("kind", [EScAIPConfig, EScAIPV1Config])
def test_a_gradient_model_starts_from_a_direct_one(kind):
    sizes = {"dim": 16, "depth": 2, "heads": 2, "distance_size": 8, "distance_dim": 8}
    more = {"frequencies": (4, 4)} if kind is EScAIPConfig else {"stress": True}
    direct = kind(forces="direct", **sizes, **more).build()
    state, config = gradient_from_direct(direct.state_dict(), direct.config)
    assert config.forces == "gradient"
    gradient = config.build()
    gradient.load_state_dict(state)
    batch = Batch.from_atoms([molecule("CH4")])
    assert gradient(batch).forces.shape == (5, 3)
