"""edge_attention on a GPU: one program for the edges of an atom and a head, all in registers.

Products are taken once for each degree, of channels of that degree alone, so that a head of `dim`
channels and `l` degrees costs 2 l dim FLOPs a pair of edges, as the official, expanded form does,
but reads and keeps only dim channels. Twenty to thirty edges fill most of a tile of 32.

In the tangent pass, a name that begins with t is the derivative of what follows along (tq, tk, tv,
tu, tbias): with L = <grad, out>, what it differentiates is <t, dL/dx>.
"""
# What triton compiles is not typed as Python.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportCallIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton_common import Launch, precision
from .._triton_host import power_of_2


@triton.jit
def rows_of(x, rows, there, heads, head, width, channel):
    """Rows (edges, heads, width) of one head, as float32, zeros where there is nothing."""
    place = x + (rows[:, None] * heads + head) * width + channel[None, :]
    return tl.load(place, there[:, None] & (channel < width)[None, :], 0.0).to(tl.float32)


@triton.jit
def store_rows(x, value, rows, there, heads, head, width, channel):
    place = x + (rows[:, None] * heads + head) * width + channel[None, :]
    tl.store(place, value, there[:, None] & (channel < width)[None, :])


@triton.jit
def vector(u, rows, there):
    """The three components of directions."""
    x = tl.load(u + rows * 3, there, 0.0)
    y = tl.load(u + rows * 3 + 1, there, 0.0)
    return x, y, tl.load(u + rows * 3 + 2, there, 0.0)


@triton.jit
def store_vector(u, x, y, z, rows, there, heads, head):
    """Components of one head, (edges, heads, 3)."""
    place = u + (rows * heads + head) * 3
    tl.store(place, x, there)
    tl.store(place + 1, y, there)
    tl.store(place + 2, z, there)


@triton.jit
def following(n, one, low):
    """P_{n+1}, or a derivative, of c P_n and both * P_{n-1}, by Bonnet's recursion."""
    return ((2 * n + 1) * one - n * low) / (n + 1)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=tl.float32)


@triton.jit
def softmax(scores):
    """Weights of every row, zeros where all is forbidden."""
    most = tl.max(scores, 1)
    most = tl.where(most == -float("inf"), 0.0, most)
    weights = tl.exp(scores - most[:, None])
    total = tl.sum(weights, 1)
    return weights / tl.where(total == 0, 1.0, total)[:, None]


@triton.jit
def passes(
    q, k, v, u, bias, offsets, degree, grad, tq, tk, tv, tu, tbias,
    out, dq, dk, dv, du_asking, du_asked, dbias, dgrad, scale, heads, dim, v_dim, degrees,
    PASS: tl.constexpr, FIRST: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Pass 0 fills out; 1 the gradients; 2 those of grad and of the inputs along tangents."""
    atom, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin = tl.load(offsets + atom)
    count = tl.load(offsets + atom + 1) - begin
    s, t = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    there = t < count
    keys, asking = begin + t, begin + s
    if FIRST:
        queries, asks = atom + s, s < 1
    else:
        queries, asks = begin + s, s < count
    here = s < count  # directions of atoms without edges are nowhere
    of = tl.load(degree + d, d < dim, -1)[None, :]
    qs = rows_of(q, queries, asks, heads, head, dim, d)
    ks = rows_of(k, keys, there, heads, head, dim, d)
    vs = rows_of(v, keys, there, heads, head, v_dim, e)
    ax, ay, az = vector(u, asking, here & asks)
    bx, by, bz = vector(u, keys, there)
    c = ax[:, None] * bx[None, :] + ay[:, None] * by[None, :] + az[:, None] * bz[None, :]
    real = (ax * ax + ay * ay + az * az > 0.5)[:, None] & (
        (bx * bx + by * by + bz * bz > 0.5)[None, :]
    )
    both = real.to(tl.float32)
    zero, one = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32), tl.full([BLOCK_Q, BLOCK_K], 1, tl.float32)
    # Triton takes for constant what a loop sets to the tensor it began as: r1 = r asks for another.
    none = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    if PASS == 2:
        tqs = rows_of(tq, queries, asks, heads, head, dim, d)
        tks = rows_of(tk, keys, there, heads, head, dim, d)
        tvs = rows_of(tv, keys, there, heads, head, v_dim, e)
        tax, tay, taz = vector(tu, asking, here & asks)
        tbx, tby, tbz = vector(tu, keys, there)
        tc = tax[:, None] * bx[None, :] + tay[:, None] * by[None, :] + taz[:, None] * bz[None, :]
        tc += ax[:, None] * tbx[None, :] + ay[:, None] * tby[None, :] + az[:, None] * tbz[None, :]

    scores, t_scores = zero, zero
    p, r, p1, r1 = one, zero, zero, none  # P_n, its derivative, those of n - 1
    for n in range(degrees):
        ql = tl.where(of == n, qs, 0.0)
        a = product(ql, tl.trans(ks), PRECISION)
        scores += p * a
        if PASS == 2:
            b = product(tl.where(of == n, tqs, 0.0), tl.trans(ks), PRECISION)
            b += product(ql, tl.trans(tks), PRECISION)
            t_scores += r * tc * a + p * b
        p, p1, r, r1 = (
            following(n, c * p, both * p1), p, following(n, p + c * r, both * r1), r,
        )  # fmt: skip
    scores = scale * scores
    if BIAS:
        scores += tl.load(bias + keys, there, 0.0)[None, :]
    weights = softmax(tl.where(there[None, :] & asks[:, None], scores, -float("inf")))
    if PASS == 0:
        store_rows(out, product(weights, vs, PRECISION), queries, asks, heads, head, v_dim, e)
    else:
        g = rows_of(grad, queries, asks, heads, head, v_dim, e)
        x = product(g, tl.trans(vs), PRECISION)
        mean = tl.sum(weights * x, 1)[:, None]
        if PASS == 1:
            f, h = weights * (x - mean), zero  # gradients of scores and, in pass 2, of t_scores
            store_rows(
                dv, product(tl.trans(weights), g, PRECISION), keys, there, heads, head, v_dim, e
            )
        else:
            t_scores = scale * t_scores + tl.load(tbias + keys, there, 0.0)[None, :]
            t_scores -= tl.sum(weights * t_scores, 1)[:, None]
            t_weights = weights * t_scores
            h = weights * (x - mean)
            inner = t_scores * (x - mean) + product(g, tl.trans(tvs), PRECISION)
            f = weights * (inner - tl.sum(weights * inner, 1)[:, None])
            store_rows(
                dv, product(tl.trans(t_weights), g, PRECISION), keys, there, heads, head, v_dim, e
            )
            moved = product(t_weights, vs, PRECISION) + product(weights, tvs, PRECISION)
            store_rows(dgrad, moved, queries, asks, heads, head, v_dim, e)
        tl.store(dbias + keys * heads + head, tl.sum(f, 0), there)
        f, h = scale * f, scale * h

        d_queries, d_keys = (
            tl.zeros([BLOCK_Q, BLOCK_D], tl.float32),
            tl.zeros([BLOCK_K, BLOCK_D], tl.float32),
        )
        dc, dtc = zero, zero  # gradients of the cosines and of their tangents
        p, r, w, p1, r1, w1 = one, zero, zero, zero, none, none  # with second derivatives
        for n in range(degrees):
            ql, kl = tl.where(of == n, qs, 0.0), tl.where(of == n, ks, 0.0)
            a = product(ql, tl.trans(ks), PRECISION)
            m = f * p
            dc += f * a * r
            if PASS == 2:
                tql, tkl = tl.where(of == n, tqs, 0.0), tl.where(of == n, tks, 0.0)
                b = product(tql, tl.trans(ks), PRECISION) + product(ql, tl.trans(tks), PRECISION)
                m += h * r * tc
                m2 = h * p
                d_queries += product(m2, tkl, PRECISION)
                d_keys += product(tl.trans(m2), tql, PRECISION)
                dc += h * (b * r + a * w * tc)
                dtc += h * a * r
            d_queries += product(m, kl, PRECISION)
            d_keys += product(tl.trans(m), ql, PRECISION)
            w, w1 = following(n, 2 * r + c * w, both * w1), w
            p, p1, r, r1 = (
                following(n, c * p, both * p1), p, following(n, p + c * r, both * r1), r,
            )  # fmt: skip
        store_rows(dq, d_queries, queries, asks, heads, head, dim, d)
        store_rows(dk, d_keys, keys, there, heads, head, dim, d)

        fx, fy = tl.sum(dc * bx[None, :], 1), tl.sum(dc * by[None, :], 1)
        fz = tl.sum(dc * bz[None, :], 1)
        hx, hy = tl.sum(dc * ax[:, None], 0), tl.sum(dc * ay[:, None], 0)
        hz = tl.sum(dc * az[:, None], 0)
        if PASS == 2:
            fx += tl.sum(dtc * tbx[None, :], 1)
            fy += tl.sum(dtc * tby[None, :], 1)
            fz += tl.sum(dtc * tbz[None, :], 1)
            hx += tl.sum(dtc * tax[:, None], 0)
            hy += tl.sum(dtc * tay[:, None], 0)
            hz += tl.sum(dtc * taz[:, None], 0)
        store_vector(du_asking, fx, fy, fz, queries, asks, heads, head)
        store_vector(du_asked, hx, hy, hz, keys, there, heads, head)


def solve(
    number: int, q: Tensor, v: Tensor, offsets: Tensor, channels: Tensor, scale: float,
    first_only: bool, *, arch: str, du: Tensor | None = None, dbias: Tensor | None = None,
    **tensors: Tensor | None,
) -> None:  # fmt: skip
    """One pass; gradients of directions and biases are summed over the heads afterwards."""
    heads = q.shape[1]
    longest = int(offsets.diff().max()) if v.shape[0] else 0
    parts = {}
    if du is not None and dbias is not None:
        parts = {
            "du_asking": q.new_zeros(q.shape[0], heads, 3),
            "du_asked": q.new_zeros(v.shape[0], heads, 3),
            "dbias": q.new_zeros(v.shape[0], heads),
        }
    plan(number, q, v, offsets, channels, scale, first_only, longest, arch, **tensors, **parts)()
    if du is None or dbias is None:
        return
    asking, asked = parts["du_asking"].sum(1), parts["du_asked"].sum(1)
    dbias.copy_(parts["dbias"].sum(1))
    if first_only:
        has = (offsets.diff() > 0).nonzero()[:, 0]
        asked.index_add_(0, offsets[has], asking[has])
        asking = 0
    du.copy_(asked + asking)


POINTERS = (
    "k", "u", "bias", "grad", "tq", "tk", "tv", "tu", "tbias", "out", "dq", "dk", "dv",
    "du_asking", "du_asked", "dbias", "dgrad",
)  # fmt: skip


def plan(
    number: int, q: Tensor, v: Tensor, offsets: Tensor, channels: Tensor, scale: float,
    first_only: bool, longest: int, arch: str, **tensors: Tensor | None,
) -> Launch:  # fmt: skip
    """The launch of a pass; a tensor that it does not look at is q in its place."""
    given = {name: q if (x := tensors.get(name)) is None else x for name in POINTERS}
    dim, heads = q.shape[2], q.shape[1]
    of_degree = torch.repeat_interleave(channels.cpu()).to(q.device, torch.int32)
    keys = max(16, power_of_2(longest))
    sizes = {
        "scale": scale, "heads": heads, "dim": dim, "v_dim": v.shape[2], "PASS": number,
        "FIRST": first_only, "BIAS": tensors.get("bias") is not None,
        "degrees": channels.shape[0], "BLOCK_Q": 16 if first_only else keys, "BLOCK_K": keys,
        "BLOCK_D": max(16, power_of_2(dim)), "BLOCK_V": max(16, power_of_2(v.shape[2])),
        "PRECISION": precision(arch), "num_warps": 4 if keys * dim <= 1024 else 8, "num_stages": 1,
    }  # fmt: skip
    tensors_first = {"q": q, "v": v, "offsets": offsets, "degree": of_degree}
    return Launch(passes, offsets.shape[0] - 1, tensors_first | given | sizes, heads)
