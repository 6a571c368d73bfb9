import pytest
import torch

from core_attn.ops import delta_rule, linear_attention, use_backend, why


def inputs(*, tokens=67, dim=5, v_dim=3, batch=(2,), heads=2, dtype=torch.float64, grad=False):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, uniform=False):
        make = torch.rand if uniform else torch.randn
        return make(*batch, heads, *shape, generator=generator, dtype=torch.float64)

    k = draw(tokens, dim)
    x = {
        "q": draw(tokens, dim),
        "k": k / k.norm(dim=-1, keepdim=True),
        "v": draw(tokens, v_dim),
        "beta": draw(tokens, uniform=True),
        "decay": 0.5 + 0.5 * draw(tokens, uniform=True),
        "state": draw(dim, v_dim),
    }
    return {name: t.to(dtype).requires_grad_(grad) for name, t in x.items()}


@pytest.mark.parametrize("tokens", [2, 63, 64, 67, 130])
@pytest.mark.parametrize("gates", [(), ("beta",), ("decay",), ("beta", "decay", "state")])
def test_chunks_agree_with_the_recurrence_in_values_and_gradients(tokens, gates):
    x = inputs(tokens=tokens, grad=True)
    args = {name: t for name, t in x.items() if name in ("q", "k", "v", *gates)}
    results = {}
    for backend in ("reference", "chunked"):
        with use_backend(backend):
            out, state = delta_rule(**args)
        loss = (out.sin()).sum() + (state.cos()).sum()
        results[backend] = (out, state, *torch.autograd.grad(loss, list(args.values())))
    for ours, expected in zip(results["chunked"], results["reference"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_orthonormal_keys_make_it_linear_attention():
    k = torch.eye(6, dtype=torch.float64)[None, None, :4]
    v = torch.randn(1, 1, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(delta_rule(k, k, v), linear_attention(k, k, v))


def test_a_repeated_key_is_overwritten_not_added_to():
    k = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)[None, None]
    v = torch.tensor([[2.0], [5.0]], dtype=torch.float64)[None, None]
    out, state = delta_rule(k, k, v, scale=1.0)
    assert out.flatten().tolist() == [2.0, 5.0]
    assert state.flatten().tolist() == [5.0, 0.0]


@pytest.mark.parametrize("cut", [1, 5, 64])
def test_a_sequence_cut_in_two_gives_the_same(cut):
    x = inputs(tokens=70)
    state = x.pop("state")
    whole, last = delta_rule(**x, state=state)
    first = {n: t[:, :, :cut] for n, t in x.items()}
    second = {n: t[:, :, cut:] for n, t in x.items()}
    a, state = delta_rule(**first, state=state)
    b, state = delta_rule(**second, state=state)
    torch.testing.assert_close(torch.cat((a, b), -2), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_gradients_and_second_derivatives(backend):
    x = inputs(tokens=3, dim=2, v_dim=2, batch=(), heads=1, grad=True)
    with use_backend(backend):
        args = tuple(x.values())

        def call(q, k, v, beta, decay, state):
            return delta_rule(q, k, v, beta=beta, decay=decay, state=state)

        assert torch.autograd.gradcheck(call, args)
        assert torch.autograd.gradgradcheck(call, args)


def test_one_token_takes_the_step():
    assert why(delta_rule, **inputs(tokens=1))[0].backend == "reference"
    assert why(delta_rule, **inputs(tokens=2))[0].backend == "chunked"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_state_in_single(dtype):
    x = inputs(dtype=dtype)
    out, state = delta_rule(**x)
    exact, _ = delta_rule(**{n: t.double() for n, t in x.items()})
    assert out.dtype == dtype and state.dtype == torch.float32
    assert (out.double() - exact).norm() < 0.01 * exact.norm()


@pytest.mark.refuses
def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="state must be"):
        delta_rule(**inputs() | {"state": torch.zeros(2, 2, 3, 5, dtype=torch.float64)})
    with pytest.raises(TypeError, match="beta must be"):
        delta_rule(**inputs() | {"beta": 1.0})


@pytest.mark.parametrize("small", [1e-4, 1e-8, 1e-30, 0.0])
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_a_gate_may_close_almost_or_altogether(small, backend):
    x = inputs(tokens=70, dtype=torch.float32)
    x["decay"][..., 7] = small
    x["decay"][0, 0, 30:40] = small

    def results(dtype, name):
        leaves = [t.to(dtype).requires_grad_() for t in x.values()]
        with use_backend(name):
            out, state = delta_rule(**dict(zip(x, leaves, strict=True)))
        return out, state, *torch.autograd.grad(out.sum() + state.sum(), leaves)

    exact = results(torch.float64, "reference")
    for ours, expected in zip(results(torch.float32, backend), exact, strict=True):
        assert ours.isfinite().all()
        bound = 1e-3 * max(1.0, expected.abs().max())
        assert (ours - expected).abs().max() <= bound


def test_the_logarithm_of_the_decay_does_as_well():
    x = inputs(tokens=70, grad=True)
    decay = x.pop("decay").detach()
    decay[..., 3] = 0.0
    expected = delta_rule(**x, decay=decay)
    for backend in ("chunked", "reference"):
        with use_backend(backend):
            torch.testing.assert_close(delta_rule(**x, log_decay=decay.log()), expected)
    log = (decay / 2 + 0.1).log().float()[..., :9].requires_grad_()  # narrower than the tokens
    short = {n: t[..., :9, :] if n in "qkv" else t[..., :9] for n, t in x.items() if n != "state"}
    found = []
    for backend in ("chunked", "reference"):
        with use_backend(backend):
            out, _ = delta_rule(**short, log_decay=log)
        found.append(torch.autograd.grad(out.sum(), log)[0])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_gates_stay_wide_beside_narrow_tokens():
    x = inputs(tokens=70, dtype=torch.float32)
    half = {name: t.bfloat16() if name in "qkv" else t for name, t in x.items()}
    out, state = delta_rule(**half)
    expected, last = delta_rule(**{name: t.float() for name, t in half.items()})
    assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
    torch.testing.assert_close(out, expected.bfloat16())
    torch.testing.assert_close(state, last)
