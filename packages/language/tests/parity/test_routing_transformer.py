from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from attn_language.models.centroids import kmeans_step
from attn_language.models.routing import RoutedHeads, RoutingConfig
from attn_language.official import routing_transformer
from core_attn import losses
from core_attn.testing import assert_parity, load_case, parity_cases

PATHS = parity_cases("routing_transformer", Path(__file__).parent / "cases")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    if "idx" in case.inputs:
        check_model(case)
    elif "means0" in case.inputs:
        check_kmeans(case)
    elif "decay" in case.config:
        check_google(case)
    else:
        check_lucidrains(case)


def check_kmeans(case):
    means = [case.inputs["means0"]]
    for _ in range(case.config["iters"]):
        means.append(kmeans_step(case.inputs["x"], means[-1]))
    last = f"means{case.config['iters']}"
    assert_parity({"means1": means[1], last: means[-1]}, case.outputs)


def check_model(case):
    config = routing_transformer.config_from(case.config, case.params)
    model = config.build().eval()
    ours = routing_transformer.from_official(case.params, config)
    model.load_state_dict(ours)
    logits = model(case.inputs["idx"])
    aux = torch.stack(list(losses(model).values())).sum()
    loss = F.cross_entropy(logits.flatten(0, 1), case.inputs["targets"].flatten())
    (loss + aux).backward()
    # The recorded loss may or may not hold the auxiliary one.
    total = (
        loss + aux
        if (case.outputs["loss"] - loss).abs() > (case.outputs["loss"] - loss - aux).abs()
        else loss
    )
    assert_parity({"logits": logits, "aux_loss": aux[None], "loss": total[None]}, case.outputs)
    named = {
        n: p.grad if p.grad is not None else torch.zeros_like(p)
        for n, p in model.named_parameters()
    }
    assert_parity(routing_transformer.to_official(named, config), case.grads)


def heads_of(case, **settings):
    config = RoutingConfig(
        dim=case.config["heads"] * case.config["dim_head"], heads=case.config["heads"],
        head_dim=case.config["dim_head"], relative=False, **settings,
    )  # fmt: skip
    layer = RoutedHeads(config, case.config["heads"])
    layer.causal = case.config["causal"]
    return layer


def check_lucidrains(case):
    layer = heads_of(
        case, style="lucidrains", clusters=case.config["num_clusters"],
        window=case.config["window_size"], memory_slots=case.config["num_mem_kv"],
        commitment=case.config["commitment"], decay=case.config["ema_decay"],
        mask_routing=False,
    )  # fmt: skip
    layer.load_state_dict({
        "centroids.means": case.params["kmeans.means"], "centroids.initialized": torch.tensor(True),
        "slots_k": case.params["mem_key"], "slots_v": case.params["mem_value"],
    })  # fmt: skip
    layer.train("means_after_update" in case.outputs)
    leaves = {n: x.requires_grad_() for n, x in case.inputs.items() if n in ("q", "k", "v")}
    mask = case.inputs.get("query_mask")
    valid = None if mask is None else mask.bool()
    q, k = leaves["q"], leaves.get("k")
    similarity = layer.centroids(q, k, valid)
    losses(layer)
    y, _ = layer.route(q, k, leaves["v"], k is None, valid=valid)
    y = y.transpose(1, 2)
    aux = torch.stack(list(losses(layer).values())).sum()
    ((y * case.inputs["cotangent"]).sum() + aux).backward()
    outputs = {"y": y, "aux_loss": aux[None], "similarities": similarity}
    if layer.training:
        seen = layer.centroids._seen[0]
        outputs["new_means"] = kmeans_step(seen, layer.centroids.means)
        layer.centroids.update()
        outputs["means_after_update"] = layer.centroids.means
    assert_parity(outputs, case.outputs)
    grads = {f"in.{name}": x.grad for name, x in leaves.items()}
    for name, slots in (("mem_key", layer.slots_k), ("mem_value", layer.slots_v)):
        grads[name] = torch.zeros_like(slots) if slots.grad is None else slots.grad
    assert_parity(grads, case.grads)


def check_google(case):
    layer = heads_of(
        case, style="google", clusters=case.config["clusters"], window=case.config["window"],
        commitment=case.config["beta"], decay=case.config["decay"],
        ema_count_init=case.config["ema_count0"],
    )  # fmt: skip
    layer.centroids.means.copy_(case.inputs["means"])
    layer.centroids.ema_means.copy_(case.inputs["means"])
    q, v = (case.inputs[name].requires_grad_() for name in "qv")
    y, _ = layer.route(q, None, v, True)
    y = y.transpose(1, 2)
    aux = torch.stack(list(losses(layer).values())).sum()
    ((y * case.inputs["cotangent"]).sum() + aux).backward()
    similarity = layer.centroids(q)
    outputs = {
        "y": y, "clustering_loss": aux[None], "similarities": similarity,
        "selected": layer.members(similarity, None),
    }  # fmt: skip
    layer.centroids.update()
    outputs |= {
        "ema_count": layer.centroids.ema_count, "ema_means": layer.centroids.ema_means,
        "means_after_update": layer.centroids.means,
    }  # fmt: skip
    assert_parity(outputs, case.outputs)
    assert_parity({"in.q": q.grad, "in.v": v.grad}, case.grads)
