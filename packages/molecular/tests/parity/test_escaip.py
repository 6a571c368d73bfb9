"""Every recorded run of the official code, both releases: graph, blocks, outputs, gradients."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from attn_molecular import Batch, EScAIPConfig, EScAIPV1Config, SoftKNN
from attn_molecular.graph.dense import DenseGraph
from attn_molecular.models.features import BondOrder, DistanceLinear
from attn_molecular.official import config_from, from_official, to_official
from core_attn import angle_legendre, use_backend
from core_attn.testing import assert_parity, load_case, parity_cases

CASES = parity_cases("escaip", Path(__file__).parent / "cases")
MODELS = [path for path in CASES if load_case(path).params]
GRAPHS = [path for path in CASES if "log_envelope" in load_case(path).outputs]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
GRADIENTS = {"rtol": 1e-3, "atol": 3e-4}


def close(actual, expected, *, rtol, atol, **sizes):
    """`assert_parity` with what is absolute measured by each tensor's largest number above 1.

    `sizes` measure those tensors that are sums, by their terms.
    """
    for name, want in expected.items():
        scale = max(1.0, sizes.get(name, float(want.abs().max())))
        assert_parity({name: actual[name]}, {name: want}, rtol=rtol, atol=atol * scale)


def batch_of(inputs, periodic):
    """As the official code sees it: all axes repeat, or none."""
    count = len(inputs["natoms"])
    return Batch(
        inputs["atomic_numbers"],
        inputs["pos"].double().requires_grad_(),
        inputs["cell"].double(),
        torch.full((count, 3), bool(periodic)),
        torch.repeat_interleave(torch.arange(count), inputs["natoms"]),
        inputs["natoms"],
    )


def build(case, dtype):
    config = config_from(case.config, case.params)
    model = config.build()
    model.load_state_dict(from_official(case.params, config))
    return model.to(dtype).eval()


def called(case):
    """What the case's configuration calls its energy head."""
    return {"energy": next(k.split(".")[1] for k in case.params if "energy_layer" in k)}


def run(model, case, create_graph=True):
    batch = batch_of(case.inputs, case.config["use_pbc"])
    wants_stress = any("stress" in name for name in case.outputs)
    seen = model(batch, stress=wants_stress, create_graph=create_graph)
    outputs = {"energy": seen.energy, "forces": seen.forces}
    if seen.stress_parts is not None:
        outputs["stress_isotropic"], outputs["stress_anisotropic"] = seen.stress_parts
    elif wants_stress:
        outputs["stress"] = seen.stress.flatten(1)
    outputs = {name: x.reshape(case.outputs[name].shape) for name, x in outputs.items()}
    scalar = sum((outputs[name] * case.inputs[f"weight.{name}"]).sum() for name in sorted(outputs))
    return batch, outputs | {"scalar": scalar.reshape(1)}


@dataclass(frozen=True)
class Padded:
    """A graph whose atoms all have as many slots: those of the largest, and three more."""

    of: SoftKNN

    def __call__(self, batch, pairs=None, dtype=None):
        g = self.of(batch, pairs, dtype)
        slots = g.longest + 3

        def wide(x, fill):
            full = x.new_full((g.atoms * slots, *x.shape[1:]), fill)
            return full.index_put((g.center * slots + g.slot,), x)

        return DenseGraph(
            torch.arange(g.atoms).repeat_interleave(slots), wide(g.neighbor, 0),
            torch.arange(g.atoms + 1) * slots, wide(g.direction, 0.0), wide(g.distance, 0.0),
            wide(g.log_envelope, -torch.inf), outside=wide(torch.zeros_like(g.center).bool(), True),
            slots=slots,
        )  # fmt: skip


@pytest.mark.parametrize("form", ["float32", "float64", "reference", "padded"])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_official_outputs_and_gradients(path, form):
    case = load_case(path)
    model = build(case, torch.float64 if form == "float64" else torch.float32)
    if form == "padded":
        if not isinstance(model.config, EScAIPConfig):
            pytest.skip("the first release has no padded form")
        model.graph = Padded(model.graph)
    chosen = use_backend("reference", "edge_attention") if form == "reference" else nullcontext()
    with chosen:
        compare(model, case)


QUICK = ("v2_direct_angle_bias", "v2_grad_pbc_stress")


@pytest.mark.traces
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_official_outputs_of_compiled_layers(path):
    """All files, and by inductor, where ATTN_COMPILED names it: that takes half an hour."""
    backend = os.environ.get("ATTN_COMPILED")
    if backend is None and path.stem not in QUICK:
        pytest.skip("ATTN_COMPILED=inductor compiles every file")
    torch.compiler.reset()
    case = load_case(path)
    model = build(case, torch.float32)
    model.compile(backend=backend or "aot_eager")
    compare(model, case, again=model.config.forces == "direct")


def compare(model, case, again=True):
    """Outputs and, if `again`, gradients of the parameters and of the positions."""
    batch, outputs = run(model, case, again)
    expected = {name: case.outputs[name].to(outputs[name].dtype) for name in outputs}
    terms = sum(
        (x * case.inputs[f"weight.{name}"]).abs().sum()
        for name, x in expected.items()
        if name != "scalar"
    )
    close(outputs, expected, **TOLERANCE, scalar=float(terms))
    if not again:  # gradient forces of compiled layers cannot be differentiated
        return

    outputs["scalar"].sum().backward()
    ours = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    ours |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    grads = to_official(ours, model.config, called(case)) | {"in.pos": batch.positions.grad}
    grads = {name: x.float() for name, x in grads.items()}
    close(grads, case.grads, **GRADIENTS)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_official_blocks(path):
    case = load_case(path)
    model = build(case, torch.float32)
    first = isinstance(model.config, EScAIPV1Config)
    seen = {}
    watched = {"input_block": model.input, "output_projection": model.projection}
    watched |= {f"transformer_blocks.{i}": block for i, block in enumerate(model.blocks)}
    watched |= {f"readout_layers.{i}": readout for i, readout in enumerate(model.readouts)}
    if not first:
        for i, block in enumerate(model.blocks):
            watched[f"transformer_blocks.{i}.graph_attention"] = block.attention
    for name, module in watched.items():
        module.register_forward_hook(lambda m, a, y, name=name: seen.update({name: y}))
    graphs = []
    model.order.register_forward_hook(lambda m, a, y: graphs.append((a[0], y)))
    run(model, case)
    graph, order = graphs[0]

    atoms = len(case.inputs["pos"])
    close(
        {"order": order},
        {"order": case.outputs["graph.node_direction_expansion"][:atoms]},
        **TOLERANCE,
    )
    slot = official_slots(case, graph, model.input.attributes.distance, first)
    last = f"transformer_blocks.{len(model.blocks) - 1}"
    for name, (nodes, edges) in seen.items():
        shift = 1 if not first and name.startswith(("readout", "output")) else 0
        wanted = case.outputs[f"block.{name}.{shift}"][:atoms]
        close({name: nodes}, {name: wanted}, **TOLERANCE)
        gradient = model.config.forces == "gradient"
        if gradient and name.startswith((last, "readout", "output")):
            continue  # nobody reads these edges, and we do not make them
        wanted = case.outputs[f"block.{name}.{shift + 1}"][graph.center, slot]
        close({f"{name} edges": edges}, {f"{name} edges": wanted}, **TOLERANCE)


def official_slots(case, graph, distance, first):
    """Where the official arrays keep each of our edges, found by neighbor, direction, distance."""
    sign = -1.0 if first else 1.0
    expansion = distance.expansion(graph.distance)
    direction = sign * graph.direction
    if graph.featureless is not None:
        expansion = expansion.masked_fill(graph.featureless[:, None], 0.0)
        direction = torch.where(graph.featureless[:, None], -direction, direction)
    ours = torch.cat([graph.neighbor[:, None].float(), direction, expansion], 1).detach()
    o = case.outputs
    theirs = torch.cat(
        [
            o["graph.neighbor_list"][..., None].float(),
            o["graph.edge_direction"],
            o["graph.edge_distance_expansion"],
        ],
        -1,
    )
    mask = o["graph.neighbor_mask"].bool()
    atoms = graph.atoms
    assert mask[:atoms].sum(1).tolist() == graph.counts.tolist()
    theirs = torch.where(mask[..., None], theirs, torch.inf)
    apart = (theirs[graph.center] - ours[:, None]).abs().amax(-1)
    assert apart.min(1).values.max() < 1e-3
    return apart.argmin(1)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_official_keys_go_there_and_back(path):
    case = load_case(path)
    model = build(case, torch.float32)
    back = to_official(model.state_dict(), model.config, called(case))
    assert back.keys() == case.params.keys()
    for key, value in case.params.items():
        assert torch.equal(back[key], value), key


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_missing_and_unknown_keys_are_named(path):
    case = load_case(path)
    config = config_from(case.config, case.params)
    key = next(k for k in case.params if k.endswith("node_projection.0.weight"))
    with pytest.raises(ValueError, match=r"projection\.linear\.node\.weight"):
        from_official({k: v for k, v in case.params.items() if k != key}, config)
    with pytest.raises(ValueError, match="backbone.surprise"):
        from_official(case.params | {"backbone.surprise": torch.zeros(1)}, config)


@pytest.mark.parametrize("official_images", [True, False], ids=["all images", "cell lists"])
@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_official_graph(path, official_images):
    case = load_case(path)
    c = case.config
    batch = batch_of(case.inputs, c["use_pbc"])
    soft_knn = SoftKNN(
        c["max_radius"], c["knn_k"], c["knn_soft"], c["knn_use_low_mem"], c["knn_sigmoid_scale"],
        c["knn_lse_scale"], official_images=official_images,
    )  # fmt: skip
    graph = soft_knn(batch)
    env, disp = case.outputs["src_env"], case.outputs["disp"]
    kept = torch.isfinite(env)
    assert kept.sum(1).tolist() == graph.counts.tolist()
    vector = graph.distance[:, None] * graph.direction
    theirs = torch.where(kept[..., None], disp.double(), torch.inf)
    apart = (theirs[graph.center] - vector.detach()[:, None]).abs().amax(-1)
    assert apart.min(1).values.max() < 1e-5
    slot = apart.argmin(1)
    log_envelope = case.outputs["log_envelope"][graph.center, slot]
    # -env^2 / (1 - env^2) magnifies rounding of env near 1; its exponential is what acts
    ours = {"envelope": graph.log_envelope.exp().float(), "direction": graph.direction.float()}
    wanted = case.outputs["edge_direction"][graph.center, slot]
    close(ours, {"envelope": log_envelope.exp(), "direction": wanted}, rtol=1e-4, atol=1e-6)

    order = BondOrder(6, smooth=False, unit_norm=True, floor=1e-6)(graph).float()
    close({"order": order}, {"order": case.outputs["boo_lmax5"]}, **TOLERANCE)
    values = angle_legendre(graph.padded(graph.direction), 5, right_angle=True)
    values = torch.stack(values, -1).float()
    row, column = slot_pairs(graph, slot)
    real = graph.padded(torch.ones_like(graph.slot)).bool()
    both = real[:, :, None] & real[:, None]
    wanted = case.outputs["legendre_lmax4"][row[..., 0], row[..., 1], column]
    close({"P": values[both]}, {"P": wanted[both]}, **TOLERANCE)
    for basis in ("gaussian", "sigmoid", "linear_sigmoid"):
        expansion = DistanceLinear(basis, 8, c["max_radius"], 1).expansion(graph.distance).float()
        wanted = case.outputs[f"smear_{basis}"][graph.center, slot]
        close({basis: expansion}, {basis: wanted}, **TOLERANCE)

    if "in.pos" not in case.grads:
        return
    place = torch.argsort(graph.center * 1000 + slot)
    ramp = torch.linspace(0.5, 1.5, len(slot), dtype=torch.float64)
    scalar = (graph.log_envelope.exp()[place] * ramp).sum() + 0.01 * vector.square().sum()
    scalar.backward()
    scalar = float(scalar.detach())
    assert abs(scalar - float(case.outputs["scalar"])) < 1e-4 * abs(scalar)
    close({"in.pos": batch.positions.grad.float()}, case.grads, **GRADIENTS)


def slot_pairs(graph, slot):
    """Official places of every pair of edges, padded like `graph.padded`."""
    padded = graph.padded(slot)
    atom = torch.arange(graph.atoms)[:, None].expand_as(padded)
    row = torch.stack([atom, padded], -1)[:, :, None].expand(-1, -1, graph.longest, -1)
    return row, padded[:, None].expand(-1, graph.longest, -1)
