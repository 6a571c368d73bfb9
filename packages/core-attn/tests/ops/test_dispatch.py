"""Who computes a call: the order, what is asked for, and what is said of it."""

import asyncio
import threading

import pytest
import torch

from core_attn import (
    attention,
    attention_weights,
    bidirectional_linear_attention,
    short_attention,
    short_attention_block,
    use_backend,
    why,
)  # fmt: skip
from core_attn.ops._dispatch import Backend, Operator, Plan, Refusal, _operators


def qkv(tokens=5):
    return torch.randn(3, 2, 2, tokens, 8).unbind(0)


def test_why_names_the_operator_and_backend():
    assert why(attention, *qkv())[0].operator == "attention"
    with use_backend("reference"):
        assert [choice.backend for choice in why(attention, *qkv())] == ["reference"]


def test_why_inside_why():
    inner = []

    def twice():
        inner.append(why(attention, *qkv()))
        attention(*qkv())

    assert len(why(twice)) == 2 and len(inner[0]) == 1


def test_an_unknown_backend_is_refused_with_the_list():
    with use_backend("cuda"):
        for call in (attention, short_attention, bidirectional_linear_attention):
            with pytest.raises(ValueError, match=r"no backend 'cuda'.*reference"):
                call(*qkv())
        with pytest.raises(ValueError, match=r"no backend 'cuda'"):
            attention_weights(*qkv()[:2])


def test_a_misspelt_operator_is_refused():
    with pytest.raises(ValueError, match="'atention'; did you mean 'attention'"):
        use_backend("reference", "atention").__enter__()


def test_a_forced_backend_that_cannot_says_why():
    empty = torch.zeros(1, 1, 0, 4)
    with use_backend("sdpa"), pytest.raises(ValueError, match="no queries or no keys"):
        attention(empty, empty, empty)


def test_use_backend_ends_with_its_context():
    usual = why(attention, *qkv())[0].backend
    with pytest.raises(RuntimeError), use_backend("reference"):
        raise RuntimeError
    assert why(attention, *qkv())[0].backend == usual


def test_an_operator_that_lacks_a_backend_takes_it_as_a_preference_unless_strict():
    with use_backend("chunked"):
        assert not why(attention, *qkv())[0].forced
    with use_backend("chunked", strict=True), pytest.raises(ValueError, match="no backend 'chunk"):
        attention(*qkv())


def test_the_parts_of_an_operator_take_what_it_lacks():
    with use_backend("sdpa"):
        choices = why(short_attention, *qkv())
        assert [choice.backend for choice in choices] == ["attention", "sdpa"]
        x, weight = torch.randn(4, 5, 16), torch.randn(3 * 16, 16)
        choices = why(short_attention_block, x, weight, heads=2)
    assert [choice.backend for choice in choices] == ["composed", "attention", "sdpa"]


def test_what_names_an_operator_goes_before_what_names_none():
    with use_backend("sdpa", "attention"), use_backend("reference"):
        assert why(attention, *qkv())[0].backend == "sdpa"


@pytest.mark.parametrize("call", [attention, short_attention])
def test_every_name_that_why_prints_can_be_forced(call):
    for choice in why(call, *qkv()):
        with use_backend(choice.backend):
            assert call(*qkv()).shape == (2, 2, 5, 8)


def test_forcing_asks_only_whether_a_backend_can():
    choice = why(attention, *qkv())[0]
    if "fewer than" not in choice.refused["short"]:
        pytest.skip("no kernel on this machine")
    with use_backend("short"):
        assert why(attention, *qkv())[0].kernel == "cpu"


def test_every_kernel_gives_its_own_reason():
    wide = torch.randn(2, 2, 5, 300)
    refused = why(attention, wide, wide, wide)[0].refused["short"]
    assert "triton: " in refused and "cpu: a head dim is 300" in refused


def test_the_plan_that_was_offered_is_run_and_asked_for_once():
    asked = []

    def offer(call):
        asked.append(call)
        return Plan(lambda: call[0] + 1, "k")

    try:
        operator = Operator(
            "test_plans", Backend("no", lambda call: Refusal("never")), Backend("yes", offer)
        )
        choices = why(lambda: operator((torch.zeros(()),)))
    finally:
        _operators.pop("test_plans")
    assert len(asked) == 1
    assert (
        str(choices) == "test_plans -> yes, kernel k (the first backend that can)\n  not no: never"
    )


def test_threads_do_not_see_each_other():
    steps = [threading.Event() for _ in range(2)]
    seen = {}

    def first():
        with use_backend("reference"):
            steps[0].set()
            steps[1].wait(5)
            seen["first"] = why(attention, *qkv())

    def second():
        steps[0].wait(5)
        with use_backend("sdpa"):
            seen["second"] = why(attention, *qkv())
            steps[1].set()

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[choice.backend for choice in seen[name]] for name in ("first", "second")] == [
        ["reference"], ["sdpa"],
    ]  # fmt: skip
    assert not why(attention, *qkv())[0].forced


def test_tasks_do_not_see_each_other():
    async def one(name):
        with use_backend(name):
            await asyncio.sleep(0)
            return why(attention, *qkv())[0].backend

    async def both():
        return await asyncio.gather(one("reference"), one("sdpa"))

    assert asyncio.run(both()) == ["reference", "sdpa"]


@pytest.mark.traces
@pytest.mark.skipif(torch.__version__ < "2.14", reason="torch cannot trace context variables")
def test_compiled_code_follows_use_backend():
    compiled = torch.compile(lambda q: attention(q, q, q), backend="eager", fullgraph=True)
    q = qkv()[0]
    compiled(q)
    with use_backend("reference"):
        assert why(compiled, q)[0].backend == "reference"
    assert why(compiled, q)[0].backend == "sdpa"
