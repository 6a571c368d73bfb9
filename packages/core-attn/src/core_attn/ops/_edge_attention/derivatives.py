"""A kernel's three passes as operators of torch, so that attention is differentiable twice."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._eager import short_way, short_way_with_gradient

Solve = Callable[..., None]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def differentiable(name: str, solve: Solve) -> Callable[..., Tensor]:
    """attend(q, k, v, u, bias, offsets, channels, scale, first_only), from what computes a pass.

    Args:
        name: of the operators: `name`, `name`_backward and `name`_twice.
        solve: fills the tensors it is given by name: pass 0 fills out; 1 takes grad and fills
            dq, dk, dv, du, dbias; 2 takes grad and tangents tq, tk, tv, tu, tbias of these five and
            fills dgrad and the gradients of the inputs. What it fills holds zeros before.
    """

    @torch.library.custom_op(f"core_attn::{name}", mutates_args=())
    def forward(
        q: Tensor, k: Tensor, v: Tensor, u: Tensor, bias: Tensor | None, offsets: Tensor,
        channels: Tensor, scale: float, first_only: bool,
    ) -> Tensor:  # fmt: skip
        out = v.new_zeros(q.shape[0], q.shape[1], v.shape[2])
        solve(0, q, v, offsets, channels, scale, first_only, k=k, u=u, bias=bias, out=out)
        return out

    @torch.library.custom_op(f"core_attn::{name}_backward", mutates_args=())
    def backward(
        grad: Tensor, q: Tensor, k: Tensor, v: Tensor, u: Tensor, bias: Tensor | None,
        offsets: Tensor, channels: Tensor, scale: float, first_only: bool,
    ) -> Five:  # fmt: skip
        found = _zeros(q, k, v, u)
        dq, dk, dv, du, dbias = found
        solve(
            1, q, v, offsets, channels, scale, first_only, k=k, u=u, bias=bias, grad=grad, dq=dq,
            dk=dk, dv=dv, du=du, dbias=dbias,
        )  # fmt: skip
        return found

    @torch.library.custom_op(f"core_attn::{name}_twice", mutates_args=())
    def twice(
        tq: Tensor, tk: Tensor, tv: Tensor, tu: Tensor, tbias: Tensor, grad: Tensor, q: Tensor,
        k: Tensor, v: Tensor, u: Tensor, bias: Tensor | None, offsets: Tensor, channels: Tensor,
        scale: float, first_only: bool,
    ) -> Six:  # fmt: skip
        dgrad, found = torch.zeros_like(grad), _zeros(q, k, v, u)
        dq, dk, dv, du, dbias = found
        solve(
            2, q, v, offsets, channels, scale, first_only, k=k, u=u, bias=bias, grad=grad, dq=dq,
            dk=dk, dv=dv, du=du, dbias=dbias, tq=tq, tk=tk, tv=tv, tu=tu, tbias=tbias, dgrad=dgrad,
        )  # fmt: skip
        return dgrad, *found

    @forward.register_fake
    def _(q, k, v, u, bias, offsets, channels, scale, first_only):
        return v.new_empty(q.shape[0], q.shape[1], v.shape[2])

    @backward.register_fake
    def _(grad, q, k, v, u, bias, offsets, channels, scale, first_only):
        return _zeros(q, k, v, u)

    @twice.register_fake
    def _(tq, tk, tv, tu, tbias, grad, q, k, v, u, bias, offsets, channels, scale, first_only):
        return torch.zeros_like(grad), *_zeros(q, k, v, u)

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a checkpoint gives them only once
        dq, dk, dv, du, dbias = gradients(grad.contiguous(), *saved, ctx.scale, ctx.first_only)
        return dq, dk, dv, du, None if saved[4] is None else dbias, None, None, None, None

    def differentiate_again(ctx: Any, *tangents: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        along = (x.contiguous() for x in tangents)
        *found, dbias = second(*along, *saved, ctx.scale, ctx.first_only)
        return *found, None if saved[5] is None else dbias, None, None, None, None

    attend = short_way_with_gradient(forward, differentiate, _save)
    gradients = short_way_with_gradient(backward, differentiate_again, _save)
    second = short_way(twice)
    return attend


def _zeros(q: Tensor, k: Tensor, v: Tensor, u: Tensor) -> Five:
    return (
        torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), torch.zeros_like(u),
        k.new_zeros(k.shape[0]),
    )  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.scale, ctx.first_only = inputs
    ctx.save_for_backward(*tensors)
