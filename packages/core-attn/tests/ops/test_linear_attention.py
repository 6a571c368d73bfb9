import pytest
import torch
from torch._dynamo.testing import CompileCounter

from core_attn.ops import (
    bidirectional_linear_attention,
    delta_rule,
    linear_attention,
    use_backend,
    why,
)
from core_attn.ops._linear_attention import chunked


def inputs(*, tokens=67, dim=5, v_dim=3, batch=(2,), heads=2, dtype=torch.float64, grad=False):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, uniform=False):
        make = torch.rand if uniform else torch.randn
        return make(*batch, heads, *shape, generator=generator, dtype=torch.float64).to(dtype)

    x = {
        "q": draw(tokens, dim),
        "k": draw(tokens, dim),
        "v": draw(tokens, v_dim),
        "beta": draw(tokens, uniform=True),
        "decay": 0.5 + 0.5 * draw(tokens, uniform=True),
        "state": draw(dim, v_dim),
    }
    return {name: t.requires_grad_(grad) for name, t in x.items()}


@pytest.mark.parametrize("tokens", [2, 63, 64, 67, 130])
@pytest.mark.parametrize("gates", [(), ("beta",), ("decay",), ("beta", "decay", "state")])
def test_chunks_agree_with_the_recurrence_in_values_and_gradients(tokens, gates):
    x = inputs(tokens=tokens, grad=True)
    args = {name: t for name, t in x.items() if name in ("q", "k", "v", *gates)}
    results = {}
    for backend in ("reference", "chunked"):
        with use_backend(backend):
            out, state = linear_attention(**args)
        loss = (out.sin()).sum() + (state.cos()).sum()
        results[backend] = (out, state, *torch.autograd.grad(loss, list(args.values())))
    for ours, expected in zip(results["chunked"], results["reference"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_without_gates_it_is_the_masked_product():
    x = inputs(tokens=9)
    out, state = linear_attention(x["q"], x["k"], x["v"], scale=0.5)
    scores = (x["q"] @ x["k"].transpose(-1, -2)).tril()
    torch.testing.assert_close(out, 0.5 * scores @ x["v"])
    torch.testing.assert_close(state, x["k"].transpose(-1, -2) @ x["v"])


@pytest.mark.parametrize("cut", [1, 5, 64])
def test_a_sequence_cut_in_two_gives_the_same(cut):
    x = inputs(tokens=70)
    state = x.pop("state")
    whole, last = linear_attention(**x, state=state)
    first = {n: t[:, :, :cut] for n, t in x.items()}
    second = {n: t[:, :, cut:] for n, t in x.items()}
    a, state = linear_attention(**first, state=state)
    b, state = linear_attention(**second, state=state)
    torch.testing.assert_close(torch.cat((a, b), -2), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_gradients_and_second_derivatives(backend):
    x = inputs(tokens=3, dim=2, v_dim=2, batch=(), heads=1, grad=True)
    with use_backend(backend):
        args = tuple(x.values())

        def call(q, k, v, beta, decay, state):
            return linear_attention(q, k, v, beta=beta, decay=decay, state=state)

        assert torch.autograd.gradcheck(call, args)
        assert torch.autograd.gradgradcheck(call, args)


def test_one_token_takes_the_step():
    x = inputs(tokens=1)
    assert why(linear_attention, **x)[0].backend == "reference"
    assert why(linear_attention, **inputs(tokens=2))[0].backend == "chunked"


def test_no_tokens_leave_the_state_alone():
    x = inputs(tokens=0)
    out, state = linear_attention(**x)
    assert out.shape == (2, 2, 0, 3)
    assert state.equal(x["state"])
    with pytest.raises(ValueError, match="there are no tokens"), use_backend("chunked"):
        linear_attention(**x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_state_in_single(dtype):
    x = inputs(dtype=dtype)
    out, state = linear_attention(**x)
    exact, _ = linear_attention(**{n: t.double() for n, t in x.items()})
    assert out.dtype == dtype and state.dtype == torch.float32
    assert (out.double() - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("queries, keys, dim", [(1, 3, 50), (40, 30, 2)])
def test_both_orders_of_the_bidirectional_product(queries, keys, dim):
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 1, queries, dim, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 1, keys, dim, generator=generator, dtype=torch.float64)
    beta = torch.rand(keys, generator=generator, dtype=torch.float64)
    out = bidirectional_linear_attention(q, k, v, beta=beta, scale=0.3)
    expected = 0.3 * torch.einsum("bhqd,bhkd,k,bhke->bhqe", q, k, beta, v)
    torch.testing.assert_close(out, expected)


@pytest.mark.refuses
@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": torch.zeros(2, 2, 67, 4, dtype=torch.float64)}, "k has head dim 4, q has 5"),
        ({"v": torch.zeros(2, 2, 66, 3, dtype=torch.float64)}, "v has 66 tokens, k has 67"),
        ({"state": torch.zeros(2, 2, 3, 5, dtype=torch.float64)}, "state must be"),
        ({"beta": torch.zeros(5, dtype=torch.float64)}, "beta of shape"),
        ({"decay": torch.full((67,), -0.1)}, r"decay must be in \[0, 1\], got values from -0.1"),
        ({"decay": torch.full((67,), 1.5)}, r"decay must be in \[0, 1\]"),
        ({"log_decay": torch.zeros(67)}, "decay and log_decay are the same thing"),
        ({"decay": None, "log_decay": torch.ones(67)}, r"log_decay must be in \[-inf, 0\]"),
        ({"q": torch.zeros(67, 5, dtype=torch.float64)}, "q must be"),
        ({"scale": float("nan")}, "scale must be"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        linear_attention(**inputs() | change)


@pytest.mark.refuses
def test_batches_that_do_not_broadcast_are_named():
    q, k = torch.zeros(2, 2, 5, 4), torch.zeros(3, 2, 5, 4)
    with pytest.raises(ValueError, match=r"q \(2, 2\), k \(3, 2\) and v \(3, 2\) do not broadcast"):
        bidirectional_linear_attention(q, k, k)


@pytest.mark.refuses
def test_integers_are_refused():
    with pytest.raises(TypeError, match="q must be float"):
        linear_attention(**inputs() | {"q": torch.zeros(2, 2, 67, 5, dtype=torch.int64)})


@pytest.mark.parametrize("small", [1e-4, 1e-8, 1e-30, 0.0])
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_a_gate_may_close_almost_or_altogether(small, backend):
    x = inputs(tokens=70, dtype=torch.float32)
    x["decay"][..., 7] = small
    x["decay"][0, 0, 30:40] = small

    def results(dtype, name):
        leaves = [t.to(dtype).requires_grad_() for t in x.values()]
        with use_backend(name):
            out, state = linear_attention(**dict(zip(x, leaves, strict=True)))
        return out, state, *torch.autograd.grad(out.sum() + state.sum(), leaves)

    exact = results(torch.float64, "reference")
    for ours, expected in zip(results(torch.float32, backend), exact, strict=True):
        assert ours.isfinite().all()
        bound = 1e-3 * max(1.0, expected.abs().max())
        assert (ours - expected).abs().max() <= bound


@pytest.mark.parametrize("call", [linear_attention, delta_rule])
@pytest.mark.parametrize("small", [1e-8, 0.0])
def test_the_gradient_of_a_small_decay_has_a_gradient(small, call):
    x = inputs(tokens=9, dtype=torch.float32)
    x["k"] /= 4
    x["decay"][..., [4, 6]] = small

    def second(dtype, name):
        leaves = [t.to(dtype).requires_grad_() for t in x.values()]
        with use_backend(name):
            out, state = call(**dict(zip(x, leaves, strict=True)))
            first = torch.autograd.grad(out.sum() + state.sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.sin().sum() for g in first), leaves)

    exact = [t.float() for t in second(torch.float64, "reference")]
    torch.testing.assert_close(list(second(torch.float32, "chunked")), exact, rtol=1e-3, atol=1e-3)


def test_the_logarithm_of_the_decay_does_as_well():
    x = inputs(tokens=70, grad=True)
    decay = x.pop("decay").detach()
    decay[..., 3] = 0.0
    expected = linear_attention(**x, decay=decay)
    for backend in ("chunked", "reference"):
        with use_backend(backend):
            torch.testing.assert_close(linear_attention(**x, log_decay=decay.log()), expected)
    log = (decay / 2 + 0.1).log().float()[..., :9].requires_grad_()  # narrower than the tokens
    short = {n: t[..., :9, :] if n in "qkv" else t[..., :9] for n, t in x.items() if n != "state"}
    found = []
    for backend in ("chunked", "reference"):
        with use_backend(backend):
            out, _ = linear_attention(**short, log_decay=log)
        found.append(torch.autograd.grad(out.sum(), log)[0])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_gates_stay_wide_beside_narrow_tokens():
    x = inputs(tokens=70, dtype=torch.float32)
    half = {name: t.bfloat16() if name in "qkv" else t for name, t in x.items()}
    out, state = linear_attention(**half)
    expected, last = linear_attention(**{name: t.float() for name, t in half.items()})
    assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
    torch.testing.assert_close(out, expected.bfloat16())
    torch.testing.assert_close(state, last)


@pytest.mark.traces
def test_compiled_it_has_few_graphs_for_all_lengths():
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, d: linear_attention(x, x, x, decay=d)[0], backend=counter, fullgraph=True
    )
    for tokens in (100, 170, 300, 77):
        x, d = torch.randn(2, 2, tokens, 4), torch.rand(2, 2, tokens)
        torch.testing.assert_close(compiled(x, d), linear_attention(x, x, x, decay=d)[0])
    assert counter.frame_count <= 2


def test_many_chunks_are_taken_one_after_the_other(monkeypatch):
    x = inputs(tokens=300)
    together = linear_attention(**x)
    monkeypatch.setattr(chunked, "ALL_AT_ONCE", 1)
    torch.testing.assert_close(linear_attention(**x), together)
