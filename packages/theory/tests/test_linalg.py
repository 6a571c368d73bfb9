import pytest
import torch

from attn_theory.linalg import RidgeSystem, leave_one_out


def problem(n, p):
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(n, p, generator=generator, dtype=torch.float64)
    return f, torch.randn(n, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n, p", [(7, 4), (4, 7)])
def test_the_ridge_solution_has_zero_gradient_in_both_forms(n, p):
    f, y = problem(n, p)
    for v in (
        f.T @ RidgeSystem(f @ f.T, y, n).solve(0.1),
        RidgeSystem(f.T @ f, f.T @ y, n).solve(0.1),
    ):
        gradient = f.T @ (f @ v - y) / n + 0.1 * v
        assert gradient.abs().max() < 1e-8


def test_a_path_is_its_solutions_and_passes_singular_ones_over():
    f, y = problem(6, 3)
    path = RidgeSystem(f @ f.T, y, 6).path((0.0, 0.1), f @ f.T)
    assert path[0].isnan().all()
    torch.testing.assert_close(path[1], f @ f.T @ RidgeSystem(f @ f.T, y, 6).solve(0.1))


def test_leave_one_out_equals_leaving_out():
    f, y = problem(6, 4)
    errors = []
    for i in range(6):
        kept = [j for j in range(6) if j != i]
        # The penalty is on the sum of squares, which leaving out must not rescale.
        system = RidgeSystem(f[kept].T @ f[kept], f[kept].T @ y[kept], 5)
        v = system.solve(0.1 * 6 / 5)
        errors.append((f[i] @ v - y[i]).square())
    torch.testing.assert_close(leave_one_out(f @ f.T, y, (0.1,))[0], torch.stack(errors).mean(0))


def test_bad_requests_are_named():
    f, y = problem(6, 3)
    with pytest.raises(ValueError, match="ridge must be at least 0"):
        RidgeSystem(f @ f.T, y, 6).solve(-1.0)
    with pytest.raises(ValueError, match="singular system at ridge 0.0: set ridge > 0"):
        RidgeSystem(f @ f.T, y, 6).solve(0.0)
    with pytest.raises(ValueError, match="at least 2 samples"):
        RidgeSystem(f[:1] @ f[:1].T, y[:1], 1)
    with pytest.raises(ValueError, match="labels must be finite"):
        RidgeSystem(f @ f.T, y * float("nan"), 6)
