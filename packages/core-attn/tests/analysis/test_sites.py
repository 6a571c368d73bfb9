"""The decoders of Hugging Face, each tiny and random."""

import pytest
import torch

from core_attn.analysis import find_sites

t = pytest.importorskip("transformers")
SIZE = dict(vocab_size=19, hidden_size=32, intermediate_size=20, num_hidden_layers=2,
            num_attention_heads=4)  # fmt: skip
FAMILIES = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SIZE, num_key_value_heads=2)),
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**SIZE)),
    "phi": lambda: t.PhiForCausalLM(t.PhiConfig(**SIZE)),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**SIZE, num_key_value_heads=2)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**SIZE, num_key_value_heads=2, head_dim=8)),
}
IDS = torch.tensor([[3, 1, 4, 1, 5]])


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    model = FAMILIES[request.param]().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@torch.no_grad()
def test_heads_through_their_projection_are_the_layers_output(model):
    sites, outputs = find_sites(model), {}
    assert len(sites) == 2
    handles = [
        site.layer.register_forward_hook(
            lambda _m, _args, y, name=name: outputs.__setitem__(name, y[0])
        )
        for name, site in sites.items()
    ]
    with sites.record("heads") as heads, sites.record("pattern") as weights:
        model(IDS)
    for handle in handles:
        handle.remove()
    for name, site in sites.items():
        assert heads[name].shape[:3] == (1, 5, 4) and site.num_heads == 4
        y = heads[name].flatten(2) @ site.output_weight.T
        bias = getattr(site.projection, "bias", None)
        torch.testing.assert_close(y if bias is None else y + bias, outputs[name])
        assert weights[name].shape == (1, 4, 5, 5)
        torch.testing.assert_close(weights[name].sum(-1), torch.ones(1, 4, 5))
        assert not weights[name].triu(1).any()


@torch.no_grad()
def test_nothing_is_left_behind_not_even_after_an_error(model):
    before, count = model(IDS).logits, hooks(model)
    kind = model.config._attn_implementation
    sites = find_sites(model)
    last = list(sites)[-1]
    with sites.edit("heads", {last: torch.zeros_like}):
        assert not model(IDS).logits.equal(before)
    with pytest.raises(ZeroDivisionError), sites.record("pattern"):
        model(IDS)
        raise ZeroDivisionError
    with pytest.raises(ValueError, match=f"{last}: the weights of this layer can be read"):
        with sites.edit("pattern", {last: torch.zeros_like}):
            model(IDS)
    assert model(IDS).logits.equal(before) and hooks(model) == count
    assert model.config._attn_implementation == kind


def test_what_is_no_attention_is_refused_with_what_was_looked_for():
    with pytest.raises(ValueError, match="Linear has no attention layer known here; looked for"):
        find_sites(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no attention layer is named 'x'; layers: "):
        find_sites(FAMILIES["llama"]()).matching("x")
    with pytest.raises(ValueError, match="tap must be 'heads' or 'pattern', got 'keys'"):
        with find_sites(FAMILIES["llama"]()).record("keys"):
            pass
