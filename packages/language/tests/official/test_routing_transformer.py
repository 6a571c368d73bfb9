"""The converter on constructor options that the recorded models leave at one value."""

import pytest
import torch

from attn_language import create
from attn_language.official import routing_transformer

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
    config = routing_transformer.config_from(OFFICIAL | {"n_local_attn_heads": local}, official)
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
        ({"causal": False}, "only causal models"),
        ({"local_attn_radius_blocks": 2}, "one block back"),
        ({"use_rezero": True}, "option use_rezero = True"),
        ({"tie_embedding": True}, "option tie_embedding = True"),
    ],
)
def test_options_that_we_do_not_have_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        routing_transformer.config_from(OFFICIAL | options, {})
