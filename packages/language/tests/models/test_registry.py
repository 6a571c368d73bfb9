"""What holds for every model of the package."""

import pytest
import torch
from models_under_test import DECODERS, EXACT, SIZES, ids_of, small

from core_attn import record


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(
    "pieces", [[1] * 19, [7, 1, 8, 3], [18, 1]], ids=["tokens", "pieces", "last"]
)
@torch.no_grad()
def test_reading_in_pieces_is_reading_at_once(name, pieces):
    model, ids, state, parts = small(name), ids_of(), None, []
    for piece in ids.split(pieces, 1):
        logits, state = model.step(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=1e-5, atol=1e-5)
    assert state.position == 19


@pytest.mark.parametrize("name", EXACT)
@torch.no_grad()
def test_in_float64_pieces_are_the_whole_as_they_are_in_float32(name):
    model, ids, state, parts = small(name).double(), ids_of(), None, []
    for piece in ids.split([16, 1, 2], 1):
        logits, state = model.step(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", EXACT)
@torch.no_grad()
def test_a_state_can_be_gone_on_from_twice(name):
    model, ids = small(name), ids_of(tokens=9)
    _, state = model.step(ids[:, :5])
    _, other = model.step(ids[:, 4:7], state)
    first, _ = model.step(ids[:, 5:], state)
    second, _ = model.step(ids[:, 5:], state)
    assert first.equal(second)
    model.step(ids[:, :2], other)
    torch.testing.assert_close(first, model(ids)[:, 5:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("at", [5, 7, 18])
@torch.no_grad()
def test_earlier_logits_do_not_see_a_later_token_in_any_bit(name, at):
    model, ids = small(name), ids_of()
    changed = ids.clone()
    changed[:, at] = (changed[:, at] + 1) % SIZES["vocab"]
    before, after = model(ids), model(changed)
    assert before[:, :at].equal(after[:, :at])
    assert not before[:, at:].equal(after[:, at:])


@pytest.mark.parametrize("name", EXACT)
def test_gradients_to_later_embeddings_are_exactly_zero(name):
    model, ids = small(name), ids_of()
    seen = []
    model.embed.register_forward_hook(lambda m, a, y: seen.append(y) or y.retain_grad())
    model(ids)[:, :11].sum().backward()
    grad = seen[0].grad
    assert grad[:, 11:].abs().max() == 0
    assert grad[:, :11].abs().max() > 0


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_a_text_does_not_depend_on_its_batch(name):
    model, ids = small(name), ids_of(batch=3)
    whole = model(ids)
    for row in range(3):
        alone = model(ids[row : row + 1])
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_padding_does_not_reach_a_text(name):
    model, ids = small(name), ids_of()
    lengths = torch.tensor([19, 13])
    padded = ids.clone()
    padded[1, 13:] = 1
    logits = model(padded, lengths)
    alone = model(ids[1:, :13], torch.tensor([13]))
    torch.testing.assert_close(logits[1:, :13], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in DECODERS if name not in EXACT])
@torch.no_grad()
def test_where_later_tokens_count_a_step_reads_the_text_again(name):
    model, ids = small(name), ids_of()
    _, state = model.step(ids[:, :7])
    logits, state = model.step(ids[:, 7:11], state)
    torch.testing.assert_close(logits, model(ids[:, :11])[:, 7:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_texts_of_one_token_and_shorter_than_any_window(name):
    model = small(name)
    for tokens in (1, 2, 3):
        assert model(ids_of(batch=1, tokens=tokens)).isfinite().all()


@pytest.mark.parametrize("name", DECODERS)
def test_every_parameter_learns_in_training(name):
    model, ids = small(name).train(), ids_of(batch=3, tokens=24)
    loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    still = [
        n for n, p in model.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())
    ]
    assert not still


@pytest.mark.refuses
def test_bad_input_is_refused_by_name():
    model = small("transformer")
    with pytest.raises(TypeError, match="ids must be an integer tensor"):
        model(torch.randn(1, 3))
    with pytest.raises(ValueError, match="token id 23 is outside the vocabulary of 23"):
        model(torch.tensor([[1, 23]]))
    with pytest.raises(ValueError, match="65 tokens exceed the context of 64"):
        model(ids_of(tokens=65))
    with pytest.raises(ValueError, match="one token or more"):
        model(ids_of(tokens=0))
    _, state = model.step(ids_of(batch=2))
    with pytest.raises(ValueError, match="state has batch size 2, input has 3"):
        model.step(ids_of(batch=3), state)
    for other in (small("spikegpt"), small("transformer", depth=3), small("transformer", heads=2)):
        with pytest.raises(ValueError, match="state is of another model: TransformerConfig"):
            other.step(ids_of(batch=2), state)
    with pytest.raises(ValueError, match="lengths must be in"):
        model(ids_of(), torch.tensor([19, 20]))


KINDS = [  # the others are these with other sizes or norms
    "transformer", "spikegpt", "grassmann", "rcmha", "uoe", "uoe_expert", "routing", "routing_topk",
    "dha", "bam",
]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_program_for_any_batch_size_gives_the_same_logits(name):
    model = small(name, depth=2 if name == "dha" else 1)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (ids_of(tokens=4),), dynamic_shapes=({0: batch},))
    for size in (1, 3):
        ids = ids_of(size, 4)
        torch.testing.assert_close(program.module()(ids), model(ids), rtol=1e-4, atol=1e-5)


SOFTMAX = [name for name in DECODERS if not name.startswith(("spikegpt", "grassmann"))]


@pytest.mark.parametrize("name", SOFTMAX)
@torch.no_grad()
def test_taps_see_weights_that_sum_to_one_and_change_nothing(name):
    model, ids = small(name), ids_of()
    plain = model(ids)
    with record(model, "pattern") as seen:
        watched = model(ids)
    torch.testing.assert_close(watched, plain, rtol=1e-4, atol=1e-5)
    assert len(seen) >= 2
    for weights in seen.values():
        total = weights.sum(-1)
        assert ((total - 1).abs() < 1e-5).logical_or(total == 0).all()
