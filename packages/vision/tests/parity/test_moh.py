from pathlib import Path

import pytest
import torch

from attn_vision.models.cosine_attention import AggregatedAttention, GlobalCosineAttention
from attn_vision.models.moh_llama import MoHLlamaAttention
from attn_vision.models.tokens import TokenState
from attn_vision.official import moh
from core_attn import MixtureOfHeadAttention, losses, query_norm_gate
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("moh", Path(__file__).parent / "cases")


def layer(c):
    """The attention layer that a configuration describes, and how to call it on tokens."""
    if "hidden_size" in c:
        return MoHLlamaAttention(
            c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"],
            shared=c["shared_head"], routed=c["routed_head"], rope_theta=c["rope_theta"],
        ), lambda made, x: made(x, causal=c["causal"])  # fmt: skip
    gates = {"shared": c["shared_head"], "routed": c["routed_head"], "balance_weight": 1.0}
    gates["qkv_bias"] = c["qkv_bias"]
    if "head_dim" in c:
        options = {"head_dim": c["head_dim"], "qk_norm": c["qk_norm"]}
        made = MixtureOfHeadAttention(c["dim"], c["num_heads"], **gates, **options)
        return made, lambda made, x: made(x)
    grid = tuple(c["input_resolution"])
    if "sr_ratio" in c:
        gates["window"] = c.get("window_size", 3)
        made = AggregatedAttention(c["dim"], c["num_heads"], grid, c["sr_ratio"], **gates)
    else:
        made = GlobalCosineAttention(c["dim"], c["num_heads"], grid, **gates)
    return made, lambda made, x: made(TokenState(x, grid))


def gradients(named, rename):
    return rename({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named})


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_official_outputs_and_gradients(path):
    case = load_case(path)
    if "depth" in case.config or "depths" in case.config:
        return check_model(case)
    made, call = layer(case.config)
    made.train(case.config.get("train", False))
    made.load_state_dict(moh.layer_from_official(case.params))
    assert moh.layer_to_official(made.state_dict()).keys() == case.params.keys()
    x = case.inputs["x"].requires_grad_()
    y = call(made, x)
    loss, outputs = (y * case.inputs["cot"]).sum(), {"y": y}
    if "aux_loss" in case.outputs:
        outputs["aux_loss"] = losses(made)["gate.balance"]
        loss = loss + outputs["aux_loss"]
    loss.backward()
    wanted = {name: case.outputs[name] for name in case.outputs if name in ("y", "aux_loss")}
    assert_parity(outputs, wanted)
    grads = gradients(made.named_parameters(), moh.layer_to_official)
    assert_parity(grads | {"in.x": x.grad}, case.grads)


def check_model(case):
    config = moh.config_from(case.config, case.params)
    model = config.build().eval()
    model.load_state_dict(moh.from_official(case.params, config))
    assert moh.to_official(model.state_dict(), config).keys() == case.params.keys()
    seen, inputs = {}, dict(case.inputs)
    cotangent = inputs.pop("cot")
    inputs = {k: x.requires_grad_() if x.is_floating_point() else x for k, x in inputs.items()}
    if "depth" in case.config:
        parts = {f"blocks.{i}": block for i, block in enumerate(model.blocks)}
        parts |= {"t_embedder": model.t_embedder, "y_embedder": model.y_embedder}
        call = [inputs["x"], inputs["t"], inputs["y"]]
    else:
        parts = {
            f"block{i}.{j}": block
            for i, stage in enumerate(model.stages, 1)
            for j, block in enumerate(stage.blocks)
        }
        call = [inputs["x"]]
    for name, part in parts.items():
        part.register_forward_hook(lambda m, a, y, name=name: seen.update({f"tap.{name}": y}))
    y = model(*call)
    (y * cotangent).sum().backward()
    outputs = {name: getattr(x, "tokens", x) for name, x in seen.items()}
    assert_parity(outputs | {name: y for name in ("logits", "eps")}, case.outputs)
    grads = gradients(model.named_parameters(), lambda g: moh.to_official(g, config))
    own = {f"in.{name}": x.grad for name, x in inputs.items() if x.is_floating_point()}
    # The recorded gradients of vit_model are themselves 2e-5 away from those in float64.
    assert_parity(grads | own, case.grads, atol=5e-5)


@pytest.mark.parametrize("path", [p for p in CASES if "llama" in p.stem], ids=lambda p: p.stem)
def test_the_longest_queries_are_chosen(path):
    case = load_case(path)
    made, _ = layer(case.config)
    made.load_state_dict(case.params)
    q = made.q_proj(case.inputs["x"]).unflatten(-1, (made.num_heads, -1)).transpose(1, 2)
    gate = query_norm_gate(q, made.shared, made.routed)
    assert gate[..., made.shared :].equal(case.outputs["topk_mask"])
    assert (gate[..., : made.shared] == 1).all()
