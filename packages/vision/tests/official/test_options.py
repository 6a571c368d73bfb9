"""Options of the official constructors that no recorded file has."""

import pytest
import torch
from torch.nn import functional as F

from attn_vision import VisionTransformerConfig, create
from attn_vision.converting import convert_file
from attn_vision.models.cosine_attention import AggregatedAttention, LogOffsetBias
from attn_vision.models.tokens import TokenState
from attn_vision.official import adapted, convit, evit, moh, sparsifiner, spectformer, tic

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
STAGES = {"depths": [1, 1, 1, 1]}


def test_a_last_hidden_layer_is_found_in_the_weights():
    options = SMALL | {"representation_size": 5, "num_classes": 3, "keep_rate": [0.5]}
    config = evit.config_from(options, {})
    model, x = config.build().eval(), torch.randn(2, 3, 8, 8)
    assert evit.config_from(options | {"representation_size": None}, model.state_dict()) == config
    first = model.features(x).tokens[:, 0]
    hidden = torch.tanh(model.pre_logits.fc(first))
    torch.testing.assert_close(model(x), model.head(hidden))


def test_a_last_hidden_layer_beside_a_distillation_token_is_refused():
    with pytest.raises(ValueError, match="representation"):
        VisionTransformerConfig(representation=5, distilled=True)


@pytest.mark.parametrize("topk", [True, False])
def test_sparsifiners_official_settings_are_read(topk):
    tree = {
        "BASIS_THRESHOLD": 0.1, "BASIS_COEF": {"USE_TOPK": topk, "TOPK": 2, "THRESHOLD": 0.3},
        "ATTN_SCORE": {"USE_TOPK": topk, "THRESHOLD": 1e-3}, "PRUNE_ATTN_MATRIX_ROW": True,
    }  # fmt: skip
    options = SMALL | {"cfg": {"SPAR": tree}, "reduce_n_factor": 2.5, "qk_scale": 0.2}
    config = sparsifiner.config_from(options, {})
    assert (config.top_coefficients, config.score_threshold) == (
        (2, None) if topk else (None, 1e-3)
    )
    assert config.prune_rows and config.basis_threshold == 0.1
    attn = config.build().blocks[0].attn
    assert attn.scale == 0.2 and attn.mask_predictor.coefficient_threshold == 0.3
    assert attn.mask_predictor.proj_n.shape == (5, 2)


def test_a_part_of_sparsifiners_settings_is_refused_by_name():
    with pytest.raises(ValueError, match="cfg has no 'BASIS_COEF' where the official settings"):
        sparsifiner.config_from(SMALL | {"cfg": {"SPAR": {}}}, {})


def test_attention_of_a_sparsifiner_with_all_keys_is_scaled_as_asked():
    options = SMALL | {"qk_scale": 0.2, "attn_keep_rate_list": [1.0], "reduce_n_factor": 2}
    attn = sparsifiner.config_from(options | {"spar": {"topk": 1}}, {}).build().blocks[0].attn
    state = TokenState(torch.randn(2, 5, 12), (2, 2), prefix=1)
    q, k, v = attn.project(state.tokens)
    heads = (0.2 * q @ k.mT).softmax(-1) @ v
    torch.testing.assert_close(attn(state), attn.proj(heads.transpose(1, 2).flatten(2)))


def test_drop_path_of_a_spectformer_can_be_uniform():
    options = SMALL | {
        "depth": 3,
        "alpha": 1,
        "uniform_drop": True,
        "drop_path_rate": 0.2,
        "dropcls": 0.1,
    }
    model = spectformer.config_from(options, {}).build()
    assert [model.drop_path_rate(i) for i in range(3)] == [0.2] * 3 and model.head_drop.p == 0.1


GATED = {
    "spectformer_tiny": {"patch_size": 4, "dim": 16, "depth": 2, "spectral": 1},
    "spectformer_h_small": {
        "dims": (8, 12), "depths": (1, 1), "stem_dim": 4, "heads": (2, 3), "mlp_ratios": (2, 2),
        "spectral": (True, False),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", GATED)
def test_gates_of_official_weights_are_found_and_resized(name, capsys):
    model = create(name, image_size=32, classes=4, **GATED[name])
    official = spectformer.to_official(model.state_dict(), model.config)
    same, larger = (create(name, image_size=s, classes=4, **GATED[name]) for s in (32, 48))
    same.load_state_dict(adapted(official, same))
    larger.load_state_dict(adapted(official, larger))
    assert "complex_weight resized from 8x8 to 12x12 tokens" in capsys.readouterr().out
    for ours, x in ((model, same), (model.resized(48), larger)):
        assert all(x.equal(ours.state_dict()[key]) for key, x in x.state_dict().items())


def test_dropout_of_a_spectformer_is_that_of_its_attention_weights_too():
    config = spectformer.config_from(SMALL | {"alpha": 1, "drop_rate": 0.1}, {})
    assert (config.dropout, config.attention_dropout) == (0.1, 0.1)


def test_tables_that_timms_convit_keeps_are_no_weights():
    options = {"image_size": 8, "patch_size": 4, "dim": 8, "depth": 2, "heads": 2, "classes": 3}
    ours = create("convit_tiny", local_layers=1, **options)
    table = {"blocks.0.attn.rel_indices": torch.zeros(1, 4, 4, 3)}
    assert adapted(ours.state_dict() | table, ours).keys() == ours.state_dict().keys()


def test_a_dits_classes_are_read_off_its_table_of_labels(tmp_path):
    settings = {"image_size": 4, "dim": 16, "head_dim": 4, "heads": [4], "shared": [2],
                "routed": [1]}  # fmt: skip
    model = create("moh_dit_s_2_90", **settings, classes=6)
    file = tmp_path / "dit.pt"
    torch.save({"ema": moh.to_official(model.state_dict(), model.config)}, file)
    convert_file(str(file), str(tmp_path / "ours"), "moh_dit_s_2_90", settings, False)
    assert type(model).from_pretrained(tmp_path / "ours").config == model.config


def test_a_dit_has_one_number_of_heads_or_one_per_block():
    options = {"hidden_size": 32, "shared_head": [4, 2], "routed_head": [0, 1], "moh": True}
    one = moh.config_from(options | {"num_heads": 4, "depth": 2, "head_dim": 99}, {})
    assert one == moh.config_from(options | {"num_heads": [4, 4], "head_dim": [8, 8]}, {})
    with pytest.raises(ValueError, match="different widths"):
        moh.config_from(options | {"num_heads": [4, 8]}, {})
    with pytest.raises(ValueError, match="one entry per block"):
        moh.config_from(options | {"num_heads": [4, 4], "depth": 3}, {})


def test_distances_are_measured_by_the_images_of_pretraining():
    config = moh.config_from({**STAGES, "img_size": 32, "pretrain_size": 64}, {})
    assert config.grid(0) == (8, 8) and config.measure(0) == (16, 16)
    bias = LogOffsetBias(2, (3, 4), (3, 4), measure=(5, 9))
    apart = torch.tensor([[2 / 4, -3 / 8]]) * 8  # of the query at (2, 0) from the key at (0, 3)
    place = apart.sign() * (apart.abs() + 1).log2() / 3
    want = bias.fc2(F.relu(bias.fc1(place)))[0]
    torch.testing.assert_close(bias((3, 4), (3, 4))[:, 8, 3], want)


def test_a_wider_window_and_a_pooled_map_share_a_softmax():
    assert moh.config_from({**STAGES, "window_size": [5, 5, 5, None]}, {}).window == 5
    with pytest.raises(ValueError, match=r"windows of different sizes: \[3, 5\]"):
        moh.config_from({**STAGES, "window_size": [3, 5, 5, None]}, {})
    torch.manual_seed(0)
    layer = AggregatedAttention(8, 2, (4, 6), 2, shared=2, routed=0, window=5)
    layer.relative_pos_bias_local.data.normal_()
    x = torch.randn(1, 24, 8)
    k, v = layer.split(layer.kv(x), 2)
    q = F.normalize(layer.split(layer.q(x), 1)[0], dim=-1)
    far = F.adaptive_avg_pool2d(F.gelu(layer.sr(x.mT.unflatten(2, (4, 6)))), (2, 3))
    far_k, far_v = layer.split(layer.kv(layer.norm(far.flatten(2).mT)), 2)
    heads = torch.zeros(1, 2, 24, 4)
    for n in range(24):
        row, column = divmod(n, 6)
        slots = [(a, b) for a in range(5) for b in range(5)
                 if 0 <= row + a - 2 < 4 and 0 <= column + b - 2 < 6]  # fmt: skip
        near = [(row + a - 2) * 6 + column + b - 2 for a, b in slots]
        numbers = [5 * a + b for a, b in slots]
        asking = layer.stretched(q[:, :, n : n + 1], float(len(near) + 6))
        keys = torch.cat([F.normalize(k[:, :, near], dim=-1), F.normalize(far_k, dim=-1)], 2)
        bias = torch.cat([
            layer.relative_pos_bias_local[:, numbers], layer.positions((4, 6), (2, 3))[:, n]
        ], 1)  # fmt: skip
        weights = (asking @ keys.mT + bias[:, None]).softmax(-1)
        added = (q[:, :, n : n + 1] @ layer.learnable_tokens + layer.learnable_bias)[..., numbers]
        heads[:, :, n] = (weights @ torch.cat([v[:, :, near], far_v], 2) + added @ v[:, :, near])[
            :, :, 0
        ]
    gated = heads.transpose(1, 2) * layer.gate(x)[..., None]
    torch.testing.assert_close(layer(TokenState(x, (4, 6))), layer.proj(gated.flatten(2)))


def test_what_does_not_change_a_model_is_taken():
    assert convit.config_from({"global_pool": None, "qk_scale": None}, {}).pool == "class"
    options = {"input_channel": 3, "output_channel": 4, "kernel_size": 3, "im2col_step": 7}
    fresh = tic.layer_to(tic.MSAConvLayer(3, 4, 3))
    assert tic.layer_from(options, fresh).conv.out_channels == 4
    with pytest.raises(ValueError, match="fixed_pool_size=7"):
        moh.config_from({**STAGES, "fixed_pool_size": 7}, {})


@pytest.mark.parametrize("window", [0, 2])
def test_an_even_window_is_refused(window):
    with pytest.raises(ValueError, match=f"window must be odd, got {window}"):
        AggregatedAttention(8, 2, (4, 4), 2, shared=2, routed=0, window=window)
