from pathlib import Path

import pytest
import torch

from attn_vision.official import sparsifiner
from core_attn import attention_weights, record
from core_attn.testing import assert_parity, load_case, parity_cases


def share_of_zeros(tensors):
    return torch.stack([(x == 0).float().mean() for x in tensors]).mean()


def of_live_queries(tensors):
    """Without the rows of pruned patches: all their scores are equal, any choice is right."""
    shown = dict(tensors)
    for name, x in tensors.items():
        kind, _, block = name.partition(".")
        before = f"token_mask.{int(block or 0) - 1}"
        if kind in ("approx_attn", "basis_coef", "attn_mask", "masked_attn") and before in tensors:
            alive = tensors[before][:, None, :, None]
            patches = x[:, :, -alive.shape[2] :]
            shown[name] = torch.where(alive > 0, patches, torch.zeros_like(patches))
    return shown


@pytest.mark.parametrize(
    "path", parity_cases("sparsifiner", Path(__file__).parent / "cases"), ids=lambda p: p.stem
)
def test_official_masks_outputs_and_gradients(path):
    case = load_case(path)
    config = sparsifiner.config_from(case.config, case.params)
    model = config.build().eval()
    model.load_state_dict(sparsifiner.from_official(case.params, config))
    assert sparsifiner.to_official(model.state_dict(), config).keys() == case.params.keys()

    outputs, predictions, masks = {}, [], []
    for i, block in enumerate(model.blocks):

        def predicted(m, args, kwargs, prediction, i=i, attn=block.attn):
            q, k, *alive = (*args, None)[:3]
            mask = attn.mask(prediction, alive[0])
            predictions.append(prediction)
            masks.append(mask)
            outputs[f"approx_attn.{i}"] = prediction.scores
            outputs[f"basis_coef.{i}"] = prediction.coefficients
            outputs[f"attn_mask.{i}"] = mask.to(torch.uint8)
            outputs[f"unmasked_attn.{i}"] = attention_weights(q, k)

        block.attn.mask_predictor.register_forward_hook(predicted, with_kwargs=True)
        block.register_forward_hook(
            lambda m, args, y, i=i: outputs.update({f"token_mask.{i}": y.alive})
        )
    x = case.inputs["x"].requires_grad_()
    if case.config["spar"].get("recon"):
        with record(model, "pattern") as seen:
            maps = model.reconstructed(x)
        scores = torch.stack([scores for _, scores in maps])
        (scores * case.inputs["grad_weight_approx"]).sum().backward()
        state = model.embed(x)
        for block in model.blocks:
            state, *_ = block.dense(state)
        features = state.with_tokens(model.norm(state.tokens))
    else:
        with record(model, "pattern") as seen:
            features = model.features(x)
    logits = model.head(model.pool(features))
    outputs |= {f"masked_attn.{i}": pattern for i, pattern in enumerate(seen.values())}
    outputs |= {"logits": logits, "features": features.patches}
    outputs = {
        name: value.to(torch.uint8) if value is not None and value.dtype == torch.bool else value
        for name, value in outputs.items()
        if value is not None
    }
    outputs["attn_mask_sparsity"] = share_of_zeros(masks)
    outputs["basis_coef_sparsity"] = share_of_zeros([p.coefficients for p in predictions])
    outputs["basis_sparsity"] = share_of_zeros([p.basis for p in predictions])
    assert_parity(*(of_live_queries(tensors) for tensors in (outputs, case.outputs)))
    if "grad_weight" in case.inputs:
        loss = (logits * case.inputs["grad_weight"]).sum()
        (loss + (features.patches * case.inputs["grad_weight_features"]).sum()).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert_parity(grads | {"in.x": x.grad}, case.grads)


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in parity_cases("sparsifiner", Path(__file__).parent / "cases")
        if "prune" not in path.stem
    ],
    ids=lambda p: p.stem,
)
def test_gathered_keys_give_what_masked_ones_do(path, monkeypatch):
    case = load_case(path)
    config = sparsifiner.config_from(case.config, case.params)
    model = config.build().eval()
    model.load_state_dict(sparsifiner.from_official(case.params, config))
    masked = model(case.inputs["x"])
    monkeypatch.setattr("attn_vision.models.sparsifiner._MANY", 1)
    assert model.blocks[0].attn.gathers(2)
    torch.testing.assert_close(model(case.inputs["x"]), masked, rtol=1e-4, atol=1e-5)
