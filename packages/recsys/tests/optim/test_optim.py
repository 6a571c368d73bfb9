import copy

import pytest
import torch

from attn_recsys.layout import Layout
from attn_recsys.models import create
from attn_recsys.optim import AdamTF, DeferredAdam, deferred, make_optimizer, rows

LAYOUT = Layout.plain(4, rows=300)


def batches(steps, seed=0, rows=300):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randint(rows, (6, 4), generator=generator)
        value = torch.rand(6, 4, generator=generator).round()
        yield index, value, torch.rand(6, generator=generator).round()


def train(model, optimizer, steps, seed=0, rows=300):
    losses = []
    for index, value, label in batches(steps, seed, rows):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(index, value), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def twins(**changes):
    torch.manual_seed(0)
    dense = create("deepfm", LAYOUT, **{"dim": 4, "deep_widths": (8,)} | changes)
    sparse = create("deepfm", LAYOUT, sparse=True, **{"dim": 4, "deep_widths": (8,)} | changes)
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


@pytest.fixture(params=["kernel", "torch"])
def form(request, monkeypatch):
    """The sparse optimisers by their kernel in C, and by torch's operators."""
    if request.param == "torch":
        monkeypatch.setattr(rows, "serves", lambda weight: False)
    elif rows.KERNEL.missing():
        pytest.skip(rows.KERNEL.missing())


@pytest.mark.parametrize("eps", [1e-8, 1e-4])
def test_deferred_adam_follows_dense_adam_row_by_row(eps, form):
    dense, sparse = twins()
    one = AdamTF(dense.parameters(), lr=0.01, eps=eps)
    tables = DeferredAdam(sparse.embeddings, lr=0.01, eps=eps)
    names = {id(table.weight) for table in sparse.embeddings}
    rest = AdamTF([p for p in sparse.parameters() if id(p) not in names], lr=0.01, eps=eps)

    class Both:
        def zero_grad(self):
            tables.zero_grad()
            rest.zero_grad()

        def step(self):
            tables.step()
            rest.step()

    # After 40 steps most rows stay away for good.
    expected = train(dense, one, 40, rows=300) + train(dense, one, 160, seed=1, rows=40)
    found = train(sparse, Both(), 40, rows=300) + train(sparse, Both(), 160, seed=1, rows=40)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict(), atol=1e-4, rtol=1e-3)


def test_deferred_adam_sums_the_missed_steps_of_one_row_to_float_precision(form):
    for scale in (1e-10, 1e-8, 1e-5, 1.0):  # gradients from far below eps to far above
        dense, sparse = (
            create("mlp", Layout.plain(1, rows=2), dim=3, sparse=s) for s in (False, True)
        )
        sparse.load_state_dict(dense.state_dict())
        a, b = AdamTF([dense.embedding.weight]), DeferredAdam([sparse.embedding])
        for step in range(300):
            grad = torch.zeros(2, 3)
            grad[1] = scale * (step < 3) * torch.tensor([1.0, -2.0, 0.5])
            dense.embedding.weight.grad = grad
            rows = torch.tensor([[1]] if step < 3 else [[0]])
            sparse.embedding.weight.grad = torch.sparse_coo_tensor(
                rows, grad[rows[0]], (2, 3), check_invariants=True
            )
            a.step()
            b.step()
        torch.testing.assert_close(
            sparse.embedding.state_dict(), dense.embedding.state_dict(), atol=2e-7, rtol=2e-6
        )


def test_deferred_adam_is_dense_adam_on_given_gradients(form):
    generator = torch.Generator().manual_seed(0)
    dense, sparse = (
        create("mlp", Layout.plain(1, rows=500), dim=6, sparse=s) for s in (False, True)
    )
    sparse.load_state_dict(dense.state_dict())
    start = dense.embedding.weight.detach().clone()
    a, b = AdamTF([dense.embedding.weight]), DeferredAdam([sparse.embedding])
    often = 1 / torch.arange(1.0, 501.0)
    for _ in range(800):
        at = torch.multinomial(often, 60, replacement=True, generator=generator)
        grad = torch.randn(60, 6, generator=generator)
        grad *= 10 ** (8 * torch.rand(60, 1, generator=generator) - 10)
        dense.embedding.weight.grad = torch.zeros(500, 6).index_add_(0, at, grad)
        sparse.embedding.weight.grad = torch.sparse_coo_tensor(
            at[None], grad, (500, 6), check_invariants=True
        )
        a.step()
        b.step()
    moved = (dense.embedding.weight - start).abs().mean()
    apart = sparse.embedding.state_dict()["weight"] - dense.embedding.weight
    assert apart.abs().max() < 1e-4 * moved
    assert (apart * (dense.embedding.weight - start).sign()).mean().abs() < 5e-6 * moved  # no drift


@pytest.mark.skipif(rows.KERNEL.missing() is not None, reason=str(rows.KERNEL.missing()))
@pytest.mark.parametrize("name", ["deferred_adam", "row_adagrad"])
def test_the_kernel_gives_the_numbers_of_torch_on_any_number_of_threads(name, monkeypatch):
    def trained(threads, kernel=True):
        with monkeypatch.context() as patch:
            if not kernel:
                patch.setattr(rows, "serves", lambda weight: False)
            torch.set_num_threads(threads)
            model = twins()[1]
            optimizer = make_optimizer(model, name, lr=0.01)
            train(model, optimizer, 30)
            return model.state_dict()

    before = torch.get_num_threads()
    try:
        one, three, plain = trained(1), trained(3), trained(1, kernel=False)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(one, plain, atol=1e-4, rtol=1e-3)
    assert all(torch.equal(one[key], three[key]) for key in one)


def test_ids_outside_of_the_table_are_refused_before_the_kernel_sees_them(form):
    model = twins()[1]
    train(model, make_optimizer(model), 2)
    with pytest.raises(IndexError, match="within 0 to 299, got 2 to 300|out of (range|bounds)"):
        model(torch.tensor([[2, 3, 4, 300]]), torch.ones(1, 4))


def test_reading_sees_the_missed_steps(form):
    _, model = twins()
    optimizer = make_optimizer(model, lr=0.1)
    train(model, optimizer, 5)
    index, value, _ = next(batches(1))  # trained in the first step
    stale = model.embedding.weight.detach()[index] * value[..., None]
    read = model.embedding(index, value)
    (grad,) = torch.autograd.grad(read, model.embedding.weight, torch.ones_like(read))
    expected = torch.zeros(300).index_add_(0, index.flatten(), value.flatten())
    torch.testing.assert_close(grad.to_dense(), expected[:, None].expand(-1, 4))
    present = model.embedding.state_dict()["weight"][index] * value[..., None]
    assert not torch.allclose(stale, present, atol=1e-3)
    torch.testing.assert_close(read.detach(), present, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["deferred_adam", "lazy_adam", "row_adagrad"])
def test_sparse_optimisers_leave_absent_rows_alone_and_have_no_dense_gradient(name, form):
    _, model = twins()
    optimizer = make_optimizer(model, name, lr=0.1)
    before = model.embedding.weight.detach().clone()
    train(model, optimizer, 1)
    assert model.embedding.weight.grad.is_sparse
    index, value, _ = next(batches(1))
    touched = torch.zeros(300, dtype=torch.bool)
    touched[index[value != 0]] = True
    moved = (model.embedding.weight != before).any(1)
    assert torch.equal(moved, touched)


@pytest.mark.parametrize(
    "name", ["adam_tf", "adam", "adagrad_tf", "deferred_adam", "lazy_adam", "row_adagrad"]
)
def test_training_continues_from_a_saved_state_to_the_same_numbers(name, form):
    dense, sparse = twins()
    model = sparse if name in ("deferred_adam", "lazy_adam", "row_adagrad") else dense
    optimizer = make_optimizer(model, name, lr=0.01, table_lr=0.05)
    train(model, optimizer, 20)
    state = copy.deepcopy(optimizer.state_dict())
    weights = copy.deepcopy(model.state_dict())
    expected = train(model, optimizer, 20, seed=3)

    again = create("deepfm", LAYOUT, dim=4, deep_widths=(8,), sparse=model is sparse)
    again.load_state_dict(weights)
    resumed = make_optimizer(again, name, lr=0.01, table_lr=0.05)
    resumed.load_state_dict(state)
    assert train(again, resumed, 20, seed=3) == expected


def test_saving_changes_no_number_of_the_run(form):
    def run(saves):
        model = twins()[1]
        optimizer = make_optimizer(model, lr=0.05)
        losses = train(model, optimizer, 20)
        if saves:
            weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            model = create("deepfm", LAYOUT, dim=4, deep_widths=(8,), sparse=True)
            model.load_state_dict(weights)
            optimizer = make_optimizer(model, lr=0.05)
            optimizer.load_state_dict(state)
        losses += train(model, optimizer, 20, seed=3)
        return losses, model.state_dict()

    (losses, weights), (expected, others) = run(True), run(False)
    assert losses == expected
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_state_without_its_weights_is_refused():
    model = twins()[1]
    optimizer = make_optimizer(model, lr=0.05)
    train(model, optimizer, 20)
    other = make_optimizer(twins()[1])
    with pytest.raises(ValueError, match="load the tables' weights before the state"):
        other.load_state_dict(optimizer.state_dict())


def test_a_long_run_and_a_second_optimiser_find_every_row_at_the_present(form, monkeypatch):
    def run():
        model = twins()[1]
        train(model, make_optimizer(model, lr=0.05), 40)
        train(model, make_optimizer(model, lr=0.05), 20, seed=3)
        return model.state_dict()

    expected = run()
    monkeypatch.setattr(deferred, "LIMIT", 7)
    torch.testing.assert_close(run(), expected, atol=1e-4, rtol=1e-3)


def test_kinds_of_gradient_are_checked():
    dense, sparse = twins()
    with pytest.raises(ValueError, match="row_adagrad needs tables made with sparse=True"):
        make_optimizer(dense, "row_adagrad")
    with pytest.raises(ValueError, match="adam_tf needs tables made with sparse=False"):
        make_optimizer(sparse, "adam_tf")
    with pytest.raises(ValueError, match="table must be one of"):
        make_optimizer(dense, "sgd")
