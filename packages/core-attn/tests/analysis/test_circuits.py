import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from core_attn import MultiHeadAttention
from core_attn.analysis import circuits as c
from core_attn.testing import assert_parity, load_case, parity_cases

FILES = parity_cases("sae_circuits", Path(__file__).parents[1] / "parity" / "cases")
NAMES = {
    "encoder.1.weight": "encoder.weight",
    "encoder.1.bias": "encoder.bias",
    "decoder.0.weight": "decoder.weight",
    "tied_bias": "center",
}


def loaded(params):
    features, dim = params["encoder.1.weight"].shape
    model = c.HeadAutoencoder(dim, features)
    model.load_state_dict({ours: params[theirs] for theirs, ours in NAMES.items()})
    return model


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_official_autoencoder_and_scores(path):
    case = load_case(path)
    config, x = case.config, case.inputs["x"]
    part = x[: config["n_train"]]
    model = loaded(case.params)
    code, decoded = model(part)
    loss = model.loss(part, config["lambda"])
    loss.backward()
    actual = {"learned": code, "decoded": decoded, "loss": loss[None]}
    assert_parity(
        {theirs: model.get_parameter(ours).grad for theirs, ours in NAMES.items()}, case.grads
    )

    trained = loaded({k[8:]: v for k, v in case.outputs.items() if k.startswith("trained.")})
    codes = trained.discrete(x)
    shape = (config["layers"], config["heads"])
    positive, negative = c.distinct_codes(codes)
    node = c.node_scores(codes)
    edges = c.edge_scores(codes, config["n_features"])
    truth = case.inputs["ground_truth"]
    found = c.agreement(node, truth)
    actual |= {
        "codes": codes,
        "unique_pos": positive.unflatten(0, shape),
        "unique_neg": negative.unflatten(0, shape),
        "unique_pos_normalised": c.distinct_codes(codes, normalize=True)[0].unflatten(0, shape),
        "node_score": node,
        "node_score_across_layer": c.node_scores(codes, layers=config["layers"]),
        "edge_unique": edges,
        "edge_unique_normalised": c.edge_scores(codes, config["n_features"], normalize=True),
        "node_auc": torch.tensor([found.auc]),
        "node_best_f1": torch.tensor([found.best_balance]),
        "edge_auc": torch.tensor([c.agreement(c.edge_circuit(edges), truth).auc]),
    }
    expected = {k: v for k, v in case.outputs.items() if not k.startswith("trained.")}
    assert_parity(actual, expected)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_training_follows_the_official_trajectory(path):
    case = load_case(path)
    config, model = case.config, loaded(case.params)
    part = case.inputs["x"][: config["n_train"]]
    c.train(model, part, steps=config["epochs"], lr=config["lr"], sparsity=config["lambda"])
    # the official weights are as the last step left them, ours have unit rows again
    theirs = {k[8:]: v for k, v in case.outputs.items() if k.startswith("trained.")}
    for name in ("encoder.1.weight", "decoder.0.weight"):
        theirs[name] = theirs[name] / theirs[name].norm(dim=-1, keepdim=True)
    ours = {name: model.get_parameter(own) for name, own in NAMES.items()}
    assert_parity(ours, theirs, rtol=1e-2, atol=2e-3)


def test_edge_scores_equal_those_of_the_full_table():
    generator = torch.Generator().manual_seed(0)
    codes, features = torch.randint(0, 5, (14, 6), generator=generator), 5
    table = torch.zeros(2, 6, 6, features, features, dtype=torch.bool)
    for example, row in enumerate(codes):
        for a in range(6):
            for b in range(6):
                table[example // 7, a, b, row[a], row[b]] = True
    right = (table[0] & ~table[1]).sum((-1, -2)).float().fill_diagonal_(0)
    assert torch.equal(c.edge_scores(codes, features), right)


def test_a_planted_circuit_is_found_from_prompts():
    """Head 1 of the second layer alone sees the difference of the prompts; the others do not."""
    torch.manual_seed(0)
    layers = [MultiHeadAttention(16, heads=4) for _ in range(2)]
    for layer in layers:
        nn.init.normal_(layer.qkv.weight, std=0.3)
        with torch.no_grad():
            layer.qkv.weight[:, 15] = 0  # only the planted head reads feature 15
            layer.proj.weight[15] = 0
    with torch.no_grad():
        layers[1].qkv.weight[2 * 16 + 4 : 2 * 16 + 8, 15] = 3.0
    embedding = nn.Embedding(64, 16)
    with torch.no_grad():
        embedding.weight[:, 15] = 0
        embedding.weight[:32, 15] = 4 + torch.randn(32)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.layers = embedding, nn.ModuleList(layers)

        def forward(self, ids):
            x = self.embedding(ids)
            for layer in self.layers:
                x = x + layer(x)
            return x

    with torch.no_grad():  # negatives: the same words without feature 15
        embedding.weight[32:] = embedding.weight[:32]
        embedding.weight[32:, 15] = 0
    positive = [torch.randint(0, 32, (5,)) for _ in range(20)]
    negative = [ids + 32 for ids in positive]
    found = c.find_circuit(Model().eval(), positive, negative, features=24, steps=300, lr=1e-2)
    assert found.top(1) == [("layers.1", 1)]
    planted = torch.tensor([head == ("layers.1", 1) for head in found.heads])
    assert c.agreement(found.counts, planted).auc == 1.0
    with pytest.raises(ValueError, match="20 positive and 19 negative"):
        c.find_circuit(Model(), positive, negative[:-1])
    with pytest.raises(ValueError, match=r"100 features for 80 outputs of heads \(10 examples"):
        c.find_circuit(Model(), positive, negative, features=100)
    with pytest.raises(ValueError, match="prompt 1 has 0 tokens"):
        c.head_outputs(Model(), [positive[0], positive[0][:0]])
    with pytest.raises(ValueError, match="position must be 'mean' or 'last', got 'first'"):
        c.head_outputs(Model(), positive, position="first")


def test_ablated_heads_give_their_mean():
    layer = MultiHeadAttention(8, heads=2).eval()
    mean = torch.randn(2, 4)
    x = torch.randn(1, 3, 8)
    from core_attn import record

    with c.ablated(layer, [("", 1)], {"": mean}), record(layer, "heads") as seen:
        layer(x)
        assert torch.equal(seen[""][0, :, 1], mean[1].expand(3, -1))
        assert not torch.equal(seen[""][0, :, 0], mean[0].expand(3, -1))
    with (
        pytest.raises(ValueError, match="has heads 0 to 1, not 2"),
        c.ablated(layer, [("", 2)], {"": mean}),
    ):
        pass
    with (
        pytest.raises(ValueError, match="no layer is named 'a'"),
        c.ablated(layer, [("a", 0)], {"": mean}),
    ):
        pass


@pytest.mark.parametrize("task", ["ioi", "greater_than", "docstring"])
def test_prompts_come_in_pairs_and_are_repeatable(task):
    make = getattr(c, task)
    found = make(30, seed=1)
    assert found == make(30, seed=1) != make(30, seed=2)
    assert len(found.positive) == len(found.negative) == len(found.answers) == 30
    assert all(a != b for a, b in zip(found.positive, found.negative, strict=True))


def test_ioi_repeats_the_giver_only_in_the_positives():
    found = c.ioi(60)
    for ours, theirs, answer, giver in zip(
        found.positive, found.negative, found.answers, found.distractors, strict=True
    ):
        assert ours.count(giver.strip()) == 2 and ours.count(answer.strip()) == 1
        assert theirs.count(giver.strip()) == 1 and theirs.count(answer.strip()) == 1
    with pytest.raises(ValueError, match="0 names are single tokens"):
        c.ioi(2, single=lambda word: False)


def test_published_circuits():
    assert {task: int(c.truth(task).sum()) for task in c.GROUND_TRUTH} == {
        "ioi": 26,
        "greater_than": 9,
        "docstring": 6,
    }
    with pytest.raises(ValueError, match="no circuit is known for 'x'"):
        c.truth("x")
    with pytest.raises(ValueError, match="expected 2N examples, first half positive"):
        c.node_scores(torch.zeros(41, 3, dtype=torch.long))


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory):
    """A random GPT-2 of the published shape, with a tokenizer of whole words."""
    t = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("gpt2")
    inner = Tokenizer(models.WordLevel(unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = c.ioi(60)
    trainer = trainers.WordLevelTrainer(special_tokens=["?"])
    inner.train_from_iterator([*made.positive, *made.negative], trainer)
    t.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?").save_pretrained(folder)
    size = dict(vocab_size=inner.get_vocab_size(), n_embd=24, n_layer=12, n_head=12)
    t.GPT2LMHeadModel(t.GPT2Config(**size, n_positions=64)).save_pretrained(folder)
    return folder


def test_the_command_ranks_heads_and_compares_them_with_the_published_circuit(
    gpt2_folder, tmp_path, capsys, monkeypatch
):
    import polars as pl

    from core_attn.analysis.circuits.command import find
    from core_attn.cli import main

    monkeypatch.setattr(c, "find_circuit", partial(c.find_circuit, steps=40))

    def run(*words):
        return main("core_attn", ["find", *words], commands={"find": find})

    out = tmp_path / "circuit.csv"
    assert run(str(gpt2_folder), "--count", "6", "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "nodes Agreement(auc=" in said and "edges Agreement(auc=" in said
    table = pl.read_csv(out)
    assert table.height == 144 and table["codes"].to_list() == sorted(table["codes"], reverse=True)
    assert run(str(tmp_path / "none")) == 2
    assert "none: no such folder" in capsys.readouterr().err


def test_heads_at_the_last_position_are_those_of_that_position_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), MultiHeadAttention(8, heads=2)).eval()
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    last = c.head_outputs(model, prompts, position="last")
    with torch.no_grad():
        for prompt, parts in zip(prompts, last, strict=True):
            whole = model(prompt[None])[0, -1] - model[1].proj.bias
            torch.testing.assert_close(parts.sum(0), whole)


def ranked(counts, edges):
    heads = [("a", number) for number in range(len(counts))]
    codes, model = torch.zeros(2, len(counts)).long(), c.HeadAutoencoder(4, 5)
    return c.Circuit(heads, torch.tensor(counts), edges, codes, model).table()["head"].to_list()


def test_normalized_counts_rank_heads():
    assert ranked([0.1, 0.9, 0.5], torch.zeros(3, 3)) == [1, 2, 0]


def test_as_many_codes_are_told_apart_by_pairs_and_not_by_layer():
    edges = torch.zeros(120, 120)
    for head in range(120):  # later heads stand in more of the strongest pairs
        edges[head, :head] = edges[:head, head] = head
    counts = c.edge_counts(edges)
    order = ranked([3.0] * 120, edges)
    assert (c.edge_circuit(edges) == 0).sum() > 2  # where the softmax tells nothing
    assert [int(counts[head]) for head in order] == sorted(counts.tolist(), reverse=True)


def test_a_folder_that_is_not_there_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["circuits", "nowhere"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("core_attn.analysis.circuits", run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err == "core-attn: nowhere: no such folder\n"
