from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from attn_molecular.tasks.losses import energy_loss, force_loss, lr_factor, stress_loss
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("escaip", Path(__file__).parents[1] / "parity" / "cases")
PIECES = [path for path in CASES if "lr_factor" in load_case(path).outputs]


@pytest.mark.parametrize("path", PIECES, ids=lambda path: path.stem)
def test_official_training_pieces(path):
    case = load_case(path)
    c, i = case.config, case.inputs
    system = torch.repeat_interleave(torch.arange(len(i["natoms"])), i["natoms"])
    energy = i["energy_pred"].clone().requires_grad_()
    forces = i["forces_pred"].clone().requires_grad_()
    free = i["free_mask"].bool()
    target = i["forces_target"]
    losses = {
        "energy_mae_c4": 4 * energy_loss(energy, i["energy_target"]),
        "energy_per_atom_mae_c20": 20 * energy_loss(energy, i["energy_target"], i["natoms"]),
        "forces_l2_mean_c60": 60 * force_loss(forces, target),
        "forces_l2_per_structure_c60": 60 * force_loss(forces, target, system),
        "forces_l2_per_structure_masked_c60": 60 * force_loss(forces, target, system, free),
    }
    references = i["element_refs"][i["atomic_numbers"]]
    offset = references.new_zeros(len(i["natoms"])).index_add(0, system, references)
    referenced = i["energy_total"] - offset
    normed = (referenced - c["normalizer_mean"]) / c["normalizer_rmsd"]
    factors = [
        lr_factor(step, c["warmup_steps"], c["total_steps"], c["lr_min_factor"], c["warmup_factor"])
        for step in range(len(case.outputs["lr_factor"]))
    ]
    outputs = {name: loss.reshape(1) for name, loss in losses.items()} | {
        "energy_referenced": referenced,
        "energy_normed": normed,
        "energy_denormed_undone": normed * c["normalizer_rmsd"] + c["normalizer_mean"] + offset,
        "lr_factor": torch.tensor(factors),
    }
    model = torch.nn.Linear(3, 2, bias=False)
    model.weight.data = i["ema.w0"]
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(c["ema_decay"]))
    for step in (1, 2, 3):
        model.weight.data = i[f"ema.w{step}"].clone()
        average.update_parameters(model)
        outputs[f"ema.{step}"] = average.module.weight.detach().clone()
    assert_parity(outputs, case.outputs)
    for name, grad in case.grads.items():
        loss, _, of = name.partition(".")
        if loss in losses:
            x = forces if "forces" in of else energy
            (ours,) = torch.autograd.grad(losses[loss], x, retain_graph=True)
            assert_parity({name: ours}, {name: grad})


def test_labels_that_are_missing_do_not_count():
    energy = torch.tensor([1.0, torch.nan])
    assert energy_loss(torch.tensor([3.0, 9.0]), energy, torch.tensor([2, 5])) == 1.0
    forces = torch.tensor([[0.0, 0.0, 1.0], [torch.nan] * 3])
    assert force_loss(torch.zeros(2, 3), forces, torch.tensor([0, 1])) == 1.0
    stress = torch.stack([torch.eye(3), torch.full((3, 3), torch.nan)])
    assert stress_loss(torch.zeros(2, 3, 3), stress) == pytest.approx(1 / 3)
    nothing = torch.full((2, 3), torch.nan)
    assert force_loss(torch.zeros(2, 3), nothing) == 0


def test_perfect_forces_have_a_finite_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    force_loss(x, torch.zeros(2, 3), torch.tensor([0, 0])).backward()
    assert torch.equal(x.grad, torch.zeros(2, 3))
