"""The converter on constructor options that the recorded models leave at one value."""

import pytest
import torch

from attn_language import create
from attn_language.official import routing_transformer
from core_attn import losses

SIZES = {"vocab": 11, "dim": 12, "depth": 2, "context": 12, "heads": 2, "window": 4}
OFFICIAL = {"max_seq_len": 12, "heads": 2, "window_size": 4}


@pytest.mark.parametrize("local", [2, (2, 0), (0, 1), (1, 2)])
@pytest.mark.parametrize("options", [{}, {"shared_qk": False, "memory_slots": 1}])
def test_any_number_of_local_heads_in_each_layer(local, options):
    topk = {"selection": "topk", "head_dim": 4, "clusters": 3, "mask_routing": False}
    model = create("routing_port", **SIZES, **topk, local_heads=local, local_window=4, **options)
    official = routing_transformer.to_official(model.state_dict(), model.config)
    empty = official["routing_transformer.layers.layers.0.0.fn.to_q.weight"]
    assert empty.shape == (4 * (2 - model.config.local(0)), 12)
    config = routing_transformer.config_from(
        OFFICIAL | {"causal": True, "n_local_attn_heads": local}, official
    )
    if local == 2:  # nothing tells the number of slots
        official = {n: x for n, x in official.items() if ".mem_" not in n}
    again = config.build()
    again.load_state_dict(routing_transformer.from_official(official, config))
    ids = torch.randint(11, (1, 12))
    model.eval(), again.eval()
    for module in (*model.modules(), *again.modules()):
        if hasattr(module, "initialized"):
            module.initialized.fill_(True)
    assert again(ids).equal(model(ids))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"local_attn_radius_blocks": 2}, "one block back"),
        ({"use_rezero": True}, "option use_rezero = True"),
        ({"tie_embedding": True}, "option tie_embedding = True"),
    ],
)
def test_options_that_we_do_not_have_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        routing_transformer.config_from(OFFICIAL | options, {})


@pytest.mark.parametrize("given", [{}, {"causal": False}, {"causal": True}])
def test_models_that_are_not_causal_are_known_by_their_weights(given):
    sizes = {"clusters": 3, "shared_qk": False, "memory_slots": given.get("causal", 0) * 1}
    model = create("routing_port", **SIZES, **sizes, selection="topk", local_heads=1)
    official = routing_transformer.to_official(model.state_dict(), model.config)
    given = OFFICIAL | {"n_local_attn_heads": 1} | given
    if given.get("causal"):
        assert routing_transformer.config_from(given, official).memory_slots == 1
        return
    with pytest.raises(ValueError, match="only causal models"):
        routing_transformer.config_from(given, official)


@pytest.mark.parametrize("read", [27, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"n_local_attn_heads": 2, "dim_head": 10, "emb_dim": 40},
        {"n_local_attn_heads": (0, 1, 3), "local_attn_window_size": 4, "ff_glu": True},
        {"n_local_attn_heads": 1, "shared_qk": False, "num_mem_kv": 2, "window_size": 16},
        {"ff_mult": 2, "commitment_factor": 0.5, "emb_dim": 10},
    ],
)
@torch.no_grad()
def test_padded_texts_give_the_logits_of_the_port(options, read):
    official = pytest.importorskip("routing_transformer").RoutingTransformerLM
    given = {
        "num_tokens": 13, "dim": 24, "depth": 3, "max_seq_len": 32, "causal": True, "heads": 3,
        "dim_head": 8, "window_size": 8,
    } | options  # fmt: skip
    theirs = official(**given).eval()
    for name, x in theirs.state_dict().items():
        if name.endswith("initted"):
            x.fill_(True)
        elif name.endswith("means"):
            x.copy_(torch.nn.functional.normalize(torch.randn(x.shape), dim=-1))
        elif x.is_floating_point() and "emb.emb" not in name and "inv_freq" not in name:
            x.add_(0.3 * torch.randn(x.shape))
    config = routing_transformer.config_from(given, theirs.state_dict())
    ours = config.build().eval()
    ours.load_state_dict(routing_transformer.from_official(theirs.state_dict(), config))
    ids, lengths = torch.randint(13, (2, 32)), torch.tensor([32, read])
    valid = torch.arange(32) < lengths[:, None]
    expected, loss = theirs(ids, input_mask=valid)
    torch.testing.assert_close(ours(ids, lengths)[valid], expected[valid], rtol=1e-4, atol=1e-4)
    with torch.enable_grad():
        ours(ids, lengths)
    torch.testing.assert_close(sum(losses(ours).values()).detach(), loss.squeeze())
