"""The converter of the feed-forward whose experts are chosen per text."""

import torch

from attn_language.official import uoe


def test_experts_of_a_text_come_and_go_under_their_official_names():
    torch.manual_seed(0)
    state = {
        "switch.weight": torch.randn(4, 6 * 5), "switch.bias": torch.randn(4),
        "linear1.weight.0": torch.randn(4, 6, 2), "linear1.bias.0": torch.randn(4, 1, 2),
        "linear2.weight.0": torch.randn(4, 2, 6), "linear2.bias": torch.randn(4, 6),
        "layer_norm.weight": torch.randn(6), "layer_norm.bias": torch.randn(6),
    }  # fmt: skip
    config = uoe.config_from({"d_model": 6, "d_inner": 8, "n_experts": 4, "topk": 2}, state)
    assert config.per_text == "flattened" and config.context == 5
    block = config.make_block(0)
    _, unexpected = block.load_state_dict(uoe.from_official(state, config), strict=False)
    assert not unexpected
    back = uoe.to_official(block.state_dict(), is_attention=False, per_text=True)
    assert back.keys() == state.keys()
    assert all(back[name].equal(state[name]) for name in state)
