import math

import pytest
import torch
from models_under_test import DECODERS, EXACT, small
from torch.nn import functional as F

from attn_language.generation import generate, perplexity, stream

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [9], [3, 3, 3]]


@pytest.mark.parametrize("name", DECODERS)
def test_a_prompt_gives_in_a_batch_what_it_gives_alone(name):
    model = small(name)
    together = generate(model, PROMPTS, 6)
    assert together == [generate(model, [prompt], 6)[0] for prompt in PROMPTS]
    assert all(len(new) == 6 for new in together)


@pytest.mark.parametrize("name", EXACT)
@torch.no_grad()
def test_greedy_generation_is_that_without_a_state(name):
    model, ids = small(name), list(PROMPTS[0])
    for _ in range(5):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert generate(model, [PROMPTS[0]], 5)[0] == ids[7:]


def test_draws_depend_on_the_seed_of_their_row_only():
    model = small("transformer")
    settings = {"temperature": 1.3, "top_k": 9, "top_p": 0.9}
    together = generate(model, PROMPTS, 8, seed=[5, 6, 7], **settings)
    alone = [
        generate(model, [p], 8, seed=s, **settings)[0]
        for p, s in zip(PROMPTS, (5, 6, 7), strict=True)
    ]
    assert together == alone
    assert generate(model, [PROMPTS[0]], 8, seed=1, **settings) != [together[0]]


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.0}, {"temperature": 2.0, "top_k": 1}, {"temperature": 2.0, "top_p": 1e-9}],
)
def test_what_leaves_one_token_is_greedy(settings):
    model = small("transformer")
    assert generate(model, PROMPTS, 6, **settings) == generate(model, PROMPTS, 6)


def test_a_stop_token_ends_its_text_only():
    model = small("llama")
    free = generate(model, PROMPTS, 8)
    stop = free[0][3]
    cut = generate(model, PROMPTS, 8, stop=[stop])
    for whole, part in zip(free, cut, strict=True):
        assert part == (whole[: whole.index(stop)] if stop in whole else whole)
    assert list(stream(model, PROMPTS[0], 8, stop=[stop])) == cut[0]


@pytest.mark.parametrize(
    "name, sizes", [("transformer", {"context": 8}), ("rcmha", {"max_distance": 7})]
)
def test_text_longer_than_the_context_goes_on_from_its_last_half(name, sizes):
    model = small(name, **sizes)
    new = generate(model, [[1, 2, 3], [4, 5, 6, 7]], 20)
    assert [len(x) for x in new] == [20, 20]
    assert new[1] == generate(model, [[4, 5, 6, 7]], 20)[0]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": -1.0}, "temperature must be a number from 0 up, got -1"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\]"),
        ({"seed": [1, 2]}, "2 seeds for 1 prompts"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        generate(small("transformer"), [[1]], 1, **settings)


def test_prompts_out_of_range():
    model = small("transformer", context=8)
    with pytest.raises(ValueError, match="prompt of 9 tokens exceeds the context of 8"):
        generate(model, [[1] * 9], 1)
    with pytest.raises(ValueError, match="at least one token"):
        generate(model, [[1], []], 1)


@pytest.mark.parametrize("tokens", [2, 7, 8, 9, 30, 31, 33])
@pytest.mark.parametrize("stride", [1, 3, 7, 8])
@torch.no_grad()
def test_every_token_but_the_first_is_scored_once(tokens, stride):
    torch.manual_seed(0)
    model = small("transformer", context=8)
    model.forward = lambda ids, lengths=None: table[ids]  # a bigram model: context does not matter
    table = torch.randn(23, 23)
    ids = torch.randint(23, (tokens,))
    result = perplexity(model, ids, context=8, stride=stride, text_bytes=tokens)
    expected = F.cross_entropy(table[ids[:-1]], ids[1:]).item()
    assert result.tokens == tokens - 1
    assert result.nats == pytest.approx(expected, rel=1e-5)
    assert result.bits_per_byte == pytest.approx(expected * (tokens - 1) / math.log(2) / tokens)


@torch.no_grad()
def test_more_context_than_the_text_reads_it_at_once():
    model = small("llama")
    ids = torch.randint(23, (12,))
    whole = F.cross_entropy(model(ids[None, :-1])[0], ids[1:]).item()
    assert perplexity(model, ids, context=50).nats == pytest.approx(whole, rel=1e-5)
    with pytest.raises(ValueError, match="nothing to score"):
        perplexity(model, ids[:1])
    with pytest.raises(ValueError, match="stride must be in"):
        perplexity(model, ids, context=4, stride=5)


def test_every_id_of_a_scored_text_is_checked():
    model = small("transformer")
    with pytest.raises(ValueError, match="token id 23 is outside the vocabulary of 23"):
        perplexity(model, [1, 2, 23])
    with pytest.raises(TypeError, match="ids must be an integer tensor"):
        perplexity(model, torch.rand(5))
    narrow = perplexity(model, torch.tensor([1, 2, 3], dtype=torch.int32))
    assert narrow == perplexity(model, [1, 2, 3])
