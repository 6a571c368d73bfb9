"""Dense Adam at the price of a sparse one: a row takes its missed steps when it is next read."""

import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from ..models.embedding import FieldEmbedding, lookup
from . import rows

MOMENTS = ("exp_avg", "exp_avg_sq")
WINDOW = 256
CHUNK = 1 << 16
LIMIT = 1 << 18  # steps that are told apart; then all rows are moved to the present


class DeferredAdam(torch.optim.Optimizer):
    r"""`AdamTF` for tables with sparse gradients, touching only the rows of the batch.

    In dense Adam a row without gradient still moves: its moments decay by b1 and b2 in every step
    and carry it along. Here such a row is left alone until a batch reads it, and then moved by
    the sum of what it missed, so that the trajectory is that of dense Adam up to rounding while
    a step costs as much as the rows of the batch. With r = b1 / sqrt(b2), c_j = b2^(j/2) and the
    root s of the second moment after step t, the steps t+1 to T of a row without gradient sum to

        m sum_j lr_{t+j} b1^j / (s c_j + eps) = m / (s + eps) sum_n (-u)^n A_n(t, T),
        u = eps / (s + eps),  A_n(t, T) = sum_j lr_{t+j} r^j (1/c_j - 1)^n,

    of which three terms are kept: r^j is below 1e-11 before 1/c_j - 1 reaches 0.14, so the
    rest is less than 1e-6 of the sum (and 0 where eps is small beside s). The A_n do not depend on
    the row: one short vector update per step keeps them for every t.

    The tables are read through it, by batches and by state dicts alike. Its own state dict keeps
    rows as they lie, so that saving a run changes none of its numbers.

    Args:
        embeddings: the tables, made with `sparse=True`.
        lr: step size.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.

    Source: Kingma and Ba, 2015, arXiv 1412.6980, for Adam; the summation is ours.

    Example:
        >>> from attn_recsys.layout import Layout
        >>> table = FieldEmbedding(Layout.plain(1, rows=4), dim=2, sparse=True)
        >>> optimizer = DeferredAdam([table], lr=0.1)
        >>> table(torch.tensor([[1]]), torch.ones(1, 1)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        embeddings: Sequence[FieldEmbedding],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        dense = [table for table in embeddings if not table.sparse]
        if dense:
            raise ValueError("DeferredAdam needs tables made with sparse=True")
        if betas[0] >= math.sqrt(betas[1]):
            raise ValueError(f"betas must have b1 < sqrt(b2), got {betas}")
        super().__init__(
            [table.weight for table in embeddings],
            {"lr": lr, "betas": betas, "eps": eps, "steps": 0},
        )
        gap = torch.arange(1, WINDOW + 1, dtype=torch.float64)
        beta1, beta2 = betas
        behind = beta2 ** (-gap / 2) - 1
        powers = torch.stack([torch.ones_like(gap), behind, behind**2])
        self._weights = ((beta1 / math.sqrt(beta2)) ** gap * powers).flip(1)  # largest gap first
        self._start = 0  # the step at which every row was up to date
        self._missed = torch.zeros(3, 1, dtype=torch.float64)  # A_n(start + i, now)
        self._at: dict[Tensor, Tensor] = {}  # the step each row is at
        # what a state dict has just asked for, while it is held: a checkpoint asks twice
        self._whole: dict[Tensor, tuple[tuple[int, int], ref[Tensor]]] = {}
        for table in embeddings:
            weight = table.weight
            present = table.present(weight)
            if present.data_ptr() != weight.data_ptr():  # another optimiser has moves to make
                weight.data.copy_(present)
            moments = weight.new_zeros(len(weight), 2, *weight.shape[1:])  # a row's lie together
            self.state[weight] = dict(zip(MOMENTS, moments.unbind(1), strict=True))
            self._at[weight] = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
            table.lookup, table.present = self._lookup, self._present

    def _lookup(self, weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
        """The rows of the batch, as they are now, times their values."""
        if rows.serves(weight):
            return _Lookup.apply(weight, index, value, self._read)
        self._refresh(weight, index.flatten())
        return lookup(weight, index, value, sparse=True)

    def _read(self, weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
        out = weight.new_empty(*index.shape, weight.shape[1])
        index, value = index.long().contiguous(), value.contiguous()
        self._run_kernel(weight, rows=index, value=value, out=out)
        return out

    @torch.no_grad()
    def _present(self, weight: Tensor) -> Tensor:
        """All rows as they are now; the table stays as it is."""
        if self.steps == self._start:
            return weight.detach()
        now = (self.steps, weight._version)
        then, whole = self._whole.get(weight, (None, None))
        found = whole() if whole is not None and then == now else None
        if found is None:
            found = torch.cat([self._rows_now(weight, part) for part in _chunks(weight)])
            self._whole[weight] = now, ref(found)
        return found

    def _rows_now(self, weight: Tensor, which: Tensor) -> Tensor:
        if rows.serves(weight):
            return self._read(weight, which, weight.new_ones(len(which)))
        return self._caught_up(weight, which)[0]

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.param_groups[0]["steps"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Updates the rows that have a gradient; the others take this step when next read."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        now = self.steps + 1
        beta1, beta2 = group["betas"]
        lr = group["lr"] * math.sqrt(1 - beta2**now) / (1 - beta1**now)
        sorted_ids: dict = {}
        for weight in group["params"]:
            if weight.grad is None:
                continue
            if rows.serves(weight):
                self._run_kernel(weight, lr=lr, **rows.ordered(weight.grad, sorted_ids))
            else:
                self._move(weight, weight.grad.coalesce(), lr)
        group["steps"] = now
        self._note_missed(lr)
        if now - self._start >= LIMIT:
            for weight in group["params"]:
                for part in _chunks(weight):
                    self._refresh(weight, part)
            self._restart()
        return loss

    def _move(self, weight: Tensor, grad: Tensor, lr: float) -> None:
        """Updates the rows of a gradient."""
        group, state = self.param_groups[0], self.state[weight]
        beta1, beta2 = group["betas"]
        at, grad = grad.indices()[0], grad.values()
        self._refresh(weight, at)
        means, squares = state["exp_avg"], state["exp_avg_sq"]
        mean = means.index_select(0, at).lerp_(grad, 1 - beta1)
        square = squares.index_select(0, at).mul_(beta2)
        square.addcmul_(grad, grad, value=1 - beta2)
        means.index_copy_(0, at, mean)
        squares.index_copy_(0, at, square)
        move = mean.div_(square.sqrt_().add_(group["eps"]))
        weight.index_add_(0, at, move, alpha=-lr)
        self._at[weight].index_fill_(0, at, self.steps + 1)

    def _run_kernel(self, weight: Tensor, lr: float = 0.0, **tensors: Tensor) -> None:
        """Lets rows take the steps they missed and, where there is a gradient, the next one."""
        group, state = self.param_groups[0], self.state[weight]
        call = rows.Adam(
            lr=lr, beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"],
            start=self._start, now=self.steps, capacity=self._missed.shape[1],
        )  # fmt: skip
        mean, square = (state[name] for name in MOMENTS)
        call.stride = mean.stride(0)
        rows.run(
            "attn_recsys_adam", call, weight, mean=mean, square=square, at=self._at[weight],
            missed=self._missed, **tensors,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Moments, steps, and where rows differ from those in the tables' state dicts."""
        behind = []
        for weight in self.param_groups[0]["params"]:
            moved = (self._present(weight) != weight).any(1).nonzero()[:, 0]
            behind.append({"at": self._at[weight], "rows": moved, "values": weight.detach()[moved]})
        missed = self._missed[:, : self.steps - self._start + 1]
        deferred = {"start": self._start, "missed": missed, "tables": behind}
        return super().state_dict() | {"deferred": deferred}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            ValueError: the tables do not hold the weights that were saved with it.
        """
        super().load_state_dict(state_dict)
        deferred = state_dict["deferred"]
        self._start = deferred["start"]
        self._missed = deferred["missed"].clone(memory_format=torch.contiguous_format)
        for weight, behind in zip(self.param_groups[0]["params"], deferred["tables"], strict=True):
            state = self.state[weight]
            moments = torch.stack([state[name] for name in MOMENTS], 1)
            state.update(zip(MOMENTS, moments.unbind(1), strict=True))
            self._at[weight].copy_(behind["at"])
            moved = behind["rows"].to(weight.device)
            loaded = weight[moved]
            weight[moved] = behind["values"].to(weight)
            if not torch.allclose(self._rows_now(weight, moved), loaded, rtol=1e-3, atol=1e-5):
                raise ValueError("load the tables' weights before the state of their DeferredAdam")

    def _restart(self) -> None:
        self._start = self.steps
        self._missed = torch.zeros(3, 1, dtype=torch.float64)
        for at in self._at.values():
            at.fill_(self.steps)

    def _note_missed(self, lr: float) -> None:
        """Adds this step to what rows at each earlier step have missed."""
        past = self.steps - self._start
        if past >= self._missed.shape[1]:
            grown = torch.zeros(3, 2 * past, dtype=torch.float64)
            grown[:, : self._missed.shape[1]] = self._missed
            self._missed = grown
        reach = min(past, WINDOW)
        self._missed[:, past - reach : past].add_(self._weights[:, WINDOW - reach :], alpha=lr)

    @torch.no_grad()
    def _refresh(self, weight: Tensor, read: Tensor) -> None:
        """Lets the rows, in which some may occur twice, take the steps they missed."""
        if self.steps == self._start:
            return
        if rows.serves(weight):
            self._run_kernel(weight, rows=read.long())
            return
        at = self._at[weight]
        behind = at.index_select(0, read) < self.steps
        if not behind.all():
            read = read[behind]
        moved = self._caught_up(weight, read)
        state = self.state[weight]
        for x, found in zip((weight, *(state[name] for name in MOMENTS)), moved, strict=True):
            x.index_copy_(0, read, found)  # a row that occurs twice is written twice alike
        at.index_fill_(0, read, self.steps)

    def _caught_up(self, weight: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and their moments after the steps they missed."""
        group, state, then = self.param_groups[0], self.state[weight], self._at[weight][read]
        beta1, beta2 = group["betas"]
        mean, square = (state[name].index_select(0, read) for name in MOMENTS)
        terms = self._missed[:, : self.steps - self._start + 1].to(weight.device, weight.dtype)
        zeroth, first, second = terms.index_select(1, then - self._start).unsqueeze(-1)
        damped = square.sqrt().add_(group["eps"])
        share = group["eps"] / damped
        sums = share.mul(second).sub_(first).mul_(share).add_(zeroth)
        moved = weight.index_select(0, read).addcmul_(mean.div(damped), sums, value=-1)
        gap = (self.steps - then).to(weight.dtype)[:, None]
        return moved, mean.mul_(beta1**gap), square.mul_(beta2**gap)


def _chunks(weight: Tensor) -> Sequence[Tensor]:
    """The numbers of all rows, some at a time."""
    return torch.arange(len(weight), device=weight.device).split(CHUNK)


class _Lookup(torch.autograd.Function):
    """Rows times values, read by `read` instead of from the table."""

    @staticmethod
    def forward(ctx, weight, index, value, read):
        ctx.save_for_backward(index, value)
        ctx.rows = len(weight)
        return read(weight, index, value)

    @staticmethod
    def backward(ctx, grad):
        index, value = ctx.saved_tensors
        scaled = grad * value[..., None]
        dweight = torch.ops.aten.embedding_sparse_backward(scaled, index, ctx.rows, -1, False)
        return dweight, None, None, None
