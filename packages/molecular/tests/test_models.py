from collections import Counter

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from attn_molecular import VARIANTS, Batch, EScAIPConfig, EScAIPV1Config, create
from attn_molecular.official import (
    config_from,
    from_official,
    gradient_from_direct,
    to_official,
)
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
    "head dropout": ({"scalar_output_dropout": -0.1}, "scalar_output_dropout must be in"),
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


def test_each_dropout_is_where_the_official_constructor_puts_it(monkeypatch):
    """Counted beside fairchem-core 2.24.0 at the same settings."""
    seen = Counter()

    def dropped(call):
        seen.update([call.p])
        return call.x

    monkeypatch.setattr("core_attn.ops._dropout.operator.DROPOUT", dropped)
    rates = {"dropout": 0.11, "node_ffn_dropout": 0.13, "edge_ffn_dropout": 0.14}
    rates |= {"scalar_output_dropout": 0.15, "vector_output_dropout": 0.16}
    network = untrained(forces="direct", **rates).network.train()
    network(Batch.from_atoms([molecule("CH4")]))
    assert seen == {0.11: 28, 0.13: 4, 0.14: 6, 0.15: 4, 0.16: 2}


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


OFFICIAL = [
    {"ffn_width": 0, "readout_width": 0, "output_width": 0, "global_readout": True},
    {"ffn_width": 1, "readout_width": 0, "output_width": 2, "frequencies": (0, 4, 0, 4)},
]


@pytest.mark.parametrize("forces", ["gradient", "direct"])
@pytest.mark.parametrize("change", OFFICIAL, ids=["whole", "frequencies"])
def test_official_keys_of_single_layers_and_of_the_whole(change, forces):
    sizes = {"dim": 16, "depth": 2, "heads": 2, "distance_size": 8, "frequencies": (4, 4)} | change
    config = EScAIPConfig(forces=forces, **sizes)
    state = config.build().state_dict()
    official = to_official(state, config)
    single = config.readout_width == 0
    assert f"backbone.readout_layers.1.node_ffn.0.{'' if single else '0.'}weight" in official
    whole = (
        "backbone.readout_layers.2.global_ffn.0.weight",
        "backbone.output_projection." + ("global_projection.0.bias"),
    )
    assert all((key in official) == config.global_readout for key in whole)
    back = from_official(official, config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_an_energy_of_the_whole_is_shared_and_sees_every_atom(reduce):
    network = untrained(global_readout=True, energy_reduce=reduce).network
    far = [molecule("H2O"), molecule("CH4")]
    far[1].positions += 50.0
    seen = network(Batch.from_atoms([*far, far[0] + far[1]]))
    assert torch.allclose(seen.energies[:3], seen.energy[0] / 3)
    assert torch.allclose(seen.energies[3:8], seen.energy[1] / 5)
    assert abs(seen.energy[2] - seen.energy[0] - seen.energy[1]) > 1e-4
    assert not torch.allclose(seen.forces[8:11], seen.forces[:3], rtol=1e-3)


def test_the_first_releases_defaults_and_its_atoms_without_neighbors():
    config = EScAIPV1Config(
        dim=16,
        depth=1,
        heads=2,
        forces="direct",
        angle=False,
        distance_size=8,
        energy_reduce="mean",
    )
    network = config.build().eval()
    state = to_official(network.state_dict(), config)
    official = {"hidden_size": 16, "num_layers": 1, "atten_num_heads": 2, "direct_force": True,
                "edge_distance_expansion_size": 8}  # fmt: skip
    assert config_from(official, state) == config
    orders = []
    network.order.register_forward_hook(lambda m, a, y: orders.append(y))
    network(Batch.from_atoms([Atoms("HOH", [[0, 0, 0], [0, 0, 1], [0, 0, 40]])]))
    assert (orders[0][2] == 0).all() and (orders[0][:2] > 0).all()


def test_all_images_serve_stress_as_the_list_does():
    crystal = bulk("Si", cubic=True)
    crystal.rattle(0.05, seed=0)
    batch = Batch.from_atoms([crystal])
    listed, all_images = (
        untrained((14,), cutoff=4.0, neighbors=8, official_images=images).network(
            batch, stress=True
        )
        for images in (False, True)
    )
    assert torch.allclose(listed.stress, all_images.stress, atol=1e-5)
