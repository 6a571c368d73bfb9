from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from core_attn import MultiHeadAttention
from core_attn.analysis import Decoder, prune_decoder, recover
from core_attn.analysis.circuits import head_outputs
from core_attn.testing import assert_parity, load_case, parity_cases

transformers = pytest.importorskip("transformers")
FILES = parity_cases("amp", Path(__file__).parents[1] / "parity" / "cases")


def llama(**changes):
    config = dict(vocab_size=19, hidden_size=24, intermediate_size=20, num_hidden_layers=2,
                  num_attention_heads=6, num_key_value_heads=3)  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**config | changes)).eval()


PROMPTS = [torch.tensor([3, 1, 4, 1, 5]), torch.tensor([9, 2, 6])]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_official_importance_choice_and_surgery(path):
    case = load_case(path)
    c = case.config
    model = llama(
        vocab_size=c["vocab"], hidden_size=c["d"], intermediate_size=c["ff"],
        num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
        num_key_value_heads=c["heads"], head_dim=c["head_dim"],
    )  # fmt: skip
    model.load_state_dict(case.params, strict=True)
    decoder = Decoder(model)
    prompts = [case.inputs[f"prompt.{i}"] for i in range(len(c["prompt_lens"]))]
    found = decoder.importance(prompts)
    budget = decoder.budget(c["ratio"])
    assert (budget.heads, budget.units) == (
        c["pruned_heads_per_layer"],
        c["pruned_units_per_layer"],
    )
    assert budget.parameters == c["total_params"]
    removal = decoder.choose(found, budget.heads, budget.units)
    smaller = prune_decoder(decoder, removal)
    assert sum(p.numel() for p in smaller.parameters()) == c["params_after"]
    assert budget.parameters - budget.removed == c["params_after"]
    actual = {"logits_before.0": model(prompts[0]).logits}
    actual |= {f"logits_after.{i}": smaller(p).logits for i, p in enumerate(prompts)}
    actual |= {f"pruned.{name}": value for name, value in smaller.state_dict().items()}
    for kind, of in (("head", found.heads), ("neuron", found.units)):
        actual |= {f"{kind}_importance.{i}": x for i, x in enumerate(of.values())}
    for kind, of in (("heads", removal.heads), ("units", removal.units)):
        actual |= {f"pruned_{kind}.{i}": torch.tensor(x) for i, x in enumerate(of.values())}
    assert_parity(actual, case.outputs)


@pytest.mark.parametrize("group", ["even", "kv"])
def test_grouped_heads_masked_equals_pruned_and_reloaded(group, tmp_path):
    decoder = Decoder(llama())
    found = decoder.importance(PROMPTS)
    removal = decoder.choose(found, heads=3 if group == "even" else 2, units=5, group=group)
    with decoder.masked(removal):
        right = decoder.model(PROMPTS[0][None]).logits
    smaller = prune_decoder(decoder, removal)
    torch.testing.assert_close(smaller(PROMPTS[0][None]).logits, right, rtol=1e-4, atol=1e-5)
    smaller.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(PROMPTS[0][None]).logits, right, rtol=1e-4, atol=1e-5)
    assert again.generate(PROMPTS[0][None], max_new_tokens=3, do_sample=False).shape == (1, 8)


def test_masked_equals_pruned_to_rounding_in_double_precision():
    decoder = Decoder(llama(num_hidden_layers=4).double())
    removal = decoder.choose(decoder.importance(PROMPTS), heads=3, units=5)
    with decoder.masked(removal):
        right = decoder.model(PROMPTS[0][None]).logits
    smaller = prune_decoder(decoder, removal)
    difference = (smaller(PROMPTS[0][None]).logits - right).abs().max()
    assert right.dtype == torch.float64
    assert difference < 1e-13 * right.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "phi", "qwen2"])
def test_other_families_masked_equals_pruned(family):
    t = transformers
    size = dict(vocab_size=19, hidden_size=32, intermediate_size=20, num_hidden_layers=2,
                num_attention_heads=4)  # fmt: skip
    torch.manual_seed(0)
    model = {
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**size)),
        "phi": lambda: t.PhiForCausalLM(t.PhiConfig(**size)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**size, num_key_value_heads=2)),
    }[family]().eval()  # fmt: skip
    for parameter in model.parameters():  # biases start at 0, where losing them cannot be seen
        torch.nn.init.normal_(parameter, std=0.2)
    decoder = Decoder(model)
    budget = decoder.budget(0.2, exact=True)
    removal = decoder.choose(decoder.importance(PROMPTS), budget.heads or 2, budget.units)
    with decoder.masked(removal):
        right = model(PROMPTS[0][None]).logits
    smaller = prune_decoder(decoder, removal)
    torch.testing.assert_close(smaller(PROMPTS[0][None]).logits, right, rtol=1e-4, atol=1e-5)
    gone = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in smaller.parameters())
    heads = len(next(iter(removal.heads.values())))
    assert gone == decoder.removed_parameters(heads, budget.units)


class Ours(torch.nn.Module):
    """A decoder of taps, with queries, keys and values, and gates and units, in one matrix each."""

    @dataclass(frozen=True)
    class Config:
        heads: int = 6
        kv_heads: int = 3
        head_dim: int = 4
        hidden: int = 10

    class Feed(torch.nn.Module):
        def __init__(self, hidden):
            super().__init__()
            self.gate_up, self.down = torch.nn.Linear(24, 2 * hidden), torch.nn.Linear(hidden, 24)

        def forward(self, x):
            gate, up = self.gate_up(x).chunk(2, -1)
            return self.down(torch.nn.functional.silu(gate) * up)

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = torch.nn.Embedding(19, 24)
        self.attn = MultiHeadAttention(
            24, config.heads, kv_heads=config.kv_heads, head_dim=config.head_dim
        )
        self.feed = self.Feed(config.hidden)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attn(x, causal=True)
        return x + self.feed(x)


@pytest.mark.parametrize("group, heads", [("even", 3), ("kv", 2)])
def test_our_own_layers_masked_equals_pruned_and_built_anew(group, heads):
    torch.manual_seed(0)
    decoder = Decoder(Ours(Ours.Config()).eval())
    removal = decoder.choose(decoder.importance(PROMPTS), heads, 4, group=group)
    with decoder.masked(removal):
        right = decoder.model(PROMPTS[0][None])
    smaller = prune_decoder(decoder, removal)
    again = Ours(smaller.config).eval()
    again.load_state_dict(smaller.state_dict())
    torch.testing.assert_close(again(PROMPTS[0][None]), right)
    gone = sum(p.numel() for p in decoder.model.parameters())
    gone -= sum(p.numel() for p in smaller.parameters())
    assert gone == decoder.removed_parameters(heads, 4, group)


def test_tied_weights_stay_tied(tmp_path):
    decoder = Decoder(llama(tie_word_embeddings=True))
    removal = decoder.choose(decoder.importance(PROMPTS), 3, 5)
    smaller = prune_decoder(decoder, removal)
    assert smaller.lm_head.weight is smaller.model.embed_tokens.weight
    smaller.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(PROMPTS[0][None]).logits, smaller(PROMPTS[0][None]).logits)


def test_the_exact_budget_is_met_within_one_unit():
    decoder = Decoder(llama(num_key_value_heads=6))
    budget = decoder.budget(0.3, exact=True)
    one_unit = decoder.removed_parameters(0, 1)
    assert abs(budget.removed - budget.target) <= one_unit / 2


def gpt2():
    torch.manual_seed(0)
    size = dict(vocab_size=19, n_embd=24, n_inner=20, n_layer=2, n_head=6)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).eval()


def ours():
    torch.manual_seed(0)
    return Ours(Ours.Config()).eval()


@pytest.mark.parametrize("build", [llama, gpt2, ours], ids=lambda build: build.__name__)
def test_recovery_lowers_the_loss_of_a_cut_model_and_leaves_it_as_it_was_built(build):
    decoder = Decoder(build())
    model = prune_decoder(decoder, decoder.choose(decoder.importance(PROMPTS), 3, 5))
    texts = [torch.arange(8) % 5 for _ in range(4)]

    def loss():
        output = model(texts[0][None])
        logits = getattr(output, "logits", output)[0, :-1]
        return float(torch.nn.functional.cross_entropy(logits, texts[0][1:]).detach())

    names, before = set(model.state_dict()), loss()
    rest = {n: p.clone() for n, p in model.named_parameters() if "embed" in n or "norm" in n}
    again = recover(model, texts, epochs=20, lr=1e-2, accumulate=4)
    assert again is model and not model.training and loss() < before
    assert set(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())
    assert all(model.get_parameter(name).equal(value) for name, value in rest.items())


def test_recovery_refuses_texts_that_teach_nothing():
    with pytest.raises(ValueError, match="no texts"):
        recover(llama(), [])
    with pytest.raises(ValueError, match="text 1 has 1 tokens"):
        recover(llama(), [PROMPTS[0], torch.tensor([1])])


def test_importance_is_kept_in_single_precision():
    model = llama().to(torch.bfloat16)
    found, right = Decoder(model).importance(PROMPTS), Decoder(llama()).importance(PROMPTS)
    for ours, theirs in ((found.heads, right.heads), (found.units, right.units)):
        for name, values in ours.items():
            assert values.dtype == torch.float32
            torch.testing.assert_close(values, theirs[name], rtol=0.1, atol=1e-3)


@pytest.mark.refuses
def test_refusals_name_the_numbers():
    decoder = Decoder(llama(hidden_size=36, num_attention_heads=9))
    found = decoder.importance(PROMPTS)
    with pytest.raises(
        ValueError, match="cannot remove 2 of 9 query heads from 3 key/value groups"
    ):
        decoder.choose(found, 2, 0)
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\), got 1.5"):
        decoder.budget(1.5)
    with pytest.raises(ValueError, match="ratio 0.97 leaves 0 heads in layer 0; at least one"):
        decoder.budget(0.97)
    with pytest.raises(ValueError, match="no prompts: at least one is needed"):
        decoder.importance([])
    with pytest.raises(ValueError, match="prompt 1 has 0 tokens; at least 1"):
        decoder.importance([PROMPTS[0], PROMPTS[0][:0]])
    with pytest.raises(ValueError, match="prompt 1 has 9 tokens, the context holds 8"):
        short = Decoder(llama(max_position_embeddings=8))
        short.importance([torch.arange(8), torch.arange(9)])
    with pytest.raises(ValueError, match="uneven|leave groups of"):
        prune_decoder(decoder, decoder.choose(found, 1, 0, group="free"))
    with pytest.raises(ValueError, match="no attention layer known here"):
        Decoder(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="order must be one of standard, .*, got 'best'"):
        decoder.choose(found, 0, 1, order="best")
    for refused in (
        lambda: decoder.budget(0.1, group="x"),
        lambda: decoder.choose(found, 0, 1, group="x"),
    ):
        with pytest.raises(ValueError, match="group must be one of even, kv, free, got 'x'"):
            refused()


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (torch.zeros(2, 5, dtype=torch.long), r"prompt 0 must be one sequence, .* shape \(2, 5\)"),
        (torch.tensor([3, 10**6]), r"prompt 0 has the id 1000000; ids go from 0 to \d+"),
        (torch.tensor([3, -1]), "prompt 0 has the id -1"),
        (torch.rand(4), "prompt 0 must be token ids, a tensor of integers; got torch.float32"),
        ([1, 2], "prompt 0 must be token ids, a tensor of integers; got list"),
    ],
)
def test_what_is_no_prompt_is_refused_by_its_number(prompt, message):
    decoder = Decoder(llama())
    for run in (decoder.importance, lambda given: head_outputs(decoder.model, given)):
        with pytest.raises((TypeError, ValueError), match=message):
            run([prompt])
