import pytest
import torch

from attn_theory.random_feature_attention import (
    Inputs,
    RandomFeatureAttention,
    RandomFeatureMLP,
    RFAConfig,
    infinite_kernel,
    sphere,
)
from attn_theory.random_feature_attention.data import paper_targets, power_of_match
from attn_theory.random_feature_attention.model import check_memory, gram


def setup(samples=12, keys=5, d=3, heads=7, biased=False):
    generator = torch.Generator().manual_seed(0)
    model = RandomFeatureAttention(RFAConfig(d, heads, biased), generator)
    return model, sphere(samples, keys, d, generator)


def test_shuffled_and_duplicated_keys_change_nothing():
    model, inputs = setup()
    y = torch.randn(12, generator=torch.Generator().manual_seed(1))
    model.fit(inputs, y, 0.01)
    order = torch.tensor([4, 2, 0, 1, 3])
    shuffled = Inputs(inputs.query, inputs.keys[:, order])
    doubled = Inputs(inputs.query, inputs.keys.repeat(1, 2, 1))
    for other in (shuffled, doubled):
        torch.testing.assert_close(model.predict(other), model.predict(inputs), atol=1e-6, rtol=0)


def test_chunks_and_gram_are_the_features():
    model, inputs = setup(heads=11, biased=True)
    whole = torch.cat(list(model.chunks(inputs)), 1)
    torch.testing.assert_close(whole, model.features(inputs).flatten(1) / 11**0.5)
    torch.testing.assert_close(gram(model, inputs, 4), whole.double() @ whole[:4].double().T)


def test_bias_is_the_inner_product_of_query_and_key():
    model, inputs = setup(heads=4000, biased=True)
    query, keys = inputs.lifted()
    scores = torch.einsum("na,mab,nib->nmi", query, model.weight, keys)
    match = torch.einsum("nd,nid->ni", inputs.query, inputs.keys)
    assert (scores.mean(1) - match).abs().max() < 0.08


def test_kernel_of_unit_inputs_is_the_short_formula():
    _, inputs = setup()
    lifted = 1 + torch.einsum("nid,mjd->nimj", inputs.keys, inputs.keys).double()
    match = (1 + inputs.query @ inputs.query.T).double()
    c = (match[:, None, :, None] * lifted / 4).clamp(-1, 1)
    k1 = ((1 - c**2).sqrt() + (torch.pi - c.arccos()) * c) / (2 * torch.pi)
    expected = (lifted * k1).mean((1, 3))
    torch.testing.assert_close(infinite_kernel(inputs, inputs), expected, atol=1e-6, rtol=1e-6)


def test_the_identity_makes_the_general_family_the_second_one():
    _, inputs = setup()
    beta = torch.randn(3, generator=torch.Generator().manual_seed(2))
    same = power_of_match(2, beta, torch.eye(3))(inputs)
    torch.testing.assert_close(same, power_of_match(2, beta)(inputs))
    assert len(paper_targets(3, torch.Generator(), rotated=True)) == 9


def test_the_network_has_unit_scores():
    network = RandomFeatureMLP(8, 8, 4000, torch.Generator().manual_seed(0))
    x = sphere(50, 8, 8, torch.Generator().manual_seed(1))
    wide = torch.cat((x.query, x.keys.flatten(1), torch.ones(50, 1)), 1)
    assert (wide @ network.weight).var().item() == pytest.approx(1, abs=0.03)


def test_bad_requests_are_named():
    model, inputs = setup()
    y = torch.ones(12)
    with pytest.raises(ValueError, match="at least 1 key"):
        model.features(Inputs(inputs.query, inputs.keys[:, :0]))
    with pytest.raises(ValueError, match="query has d = 3, keys have 2"):
        model.features(Inputs(inputs.query, inputs.keys[..., :2]))
    with pytest.raises(ValueError, match="heads must be at least 1"):
        RFAConfig(3, 0)
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        RandomFeatureMLP(3, 4, 0)
    with pytest.raises(ValueError, match="ridge must be at least 0"):
        model.fit(inputs, y, -1.0)
    with pytest.raises(ValueError, match="labels must be finite"):
        model.fit(inputs, y * float("nan"), 0.1)
    with pytest.raises(ValueError, match="at least 2 samples"):
        model.fit(inputs.rows(slice(1)), y[:1], 0.1)
    with pytest.raises(ValueError, match="set ridge > 0"):
        model.fit(
            Inputs(inputs.query[:1].expand(9, 3), inputs.keys[:1].expand(9, 5, 3)), y[:9], 0.0
        )
    with pytest.raises(ValueError, match="call fit first"):
        setup()[0].predict(inputs)
    with pytest.raises(ValueError, match="lower M or n"):
        check_memory(10**6, 10**6)
