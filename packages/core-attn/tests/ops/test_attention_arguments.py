import pytest
import torch

from core_attn import attention, attention_mean, attention_row


def tensors():
    return [torch.randn(2, 4, tokens, dim).double() for tokens, dim in ((5, 6), (7, 6), (7, 3))]


BAD = {
    "not a tensor": (lambda a: a | {"q": [1.0]}, TypeError, "q must be a torch.Tensor, got list"),
    "integers": (lambda a: a | {"k": a["k"].long()}, TypeError, "k must be float64.*got torch.int"),
    "dtype": (lambda a: a | {"v": a["v"].float()}, ValueError, "v has dtype torch.float32 but q"),
    "device": (lambda a: a | {"k": a["k"].to("meta")}, ValueError, "k is on meta but q is on cpu"),
    "dimensions": (lambda a: a | {"q": a["q"][0, 0]}, ValueError, r"q must be \(\*batch, heads"),
    "batch": (lambda a: a | {"k": a["k"][:1]}, ValueError, "batch dimensions differ"),
    "head dim": (lambda a: a | {"k": a["k"][..., :3]}, ValueError, "k has head dim 3, q has 6"),
    "tokens": (lambda a: a | {"v": a["v"][:, :, :3]}, ValueError, "v has 3 tokens, k has 7"),
    "heads": (lambda a: a | {"k": a["k"][:, :3]}, ValueError, "k has 3 heads, which do not divide"),
    "map length": (lambda a: a | {"v_head_map": [0]}, ValueError, "v_head_map has 1 entries"),
    "map range": (lambda a: a | {"k_head_map": [0, 1, 2, 4]}, ValueError, "k_head_map contains 4"),
    "bias": (
        lambda a: a | {"bias": torch.zeros(3, 7)},
        ValueError,
        "bias of shape .3, 7. does not",
    ),
    "mask type": (lambda a: a | {"mask": torch.zeros(5, 7)}, TypeError, "mask must be boolean"),
    "mask shape": (
        lambda a: a | {"mask": torch.ones(2, 7, dtype=torch.bool)},
        ValueError,
        "mask of shape",
    ),
    "scale": (
        lambda a: a | {"scale": float("inf")},
        ValueError,
        "scale must be a finite number.*inf",
    ),
    "dropout": (lambda a: a | {"dropout": 1.0}, ValueError, r"dropout must be in \[0, 1\), got 1"),
    "window": (lambda a: a | {"window": (-1, 2)}, ValueError, "window must be one or two"),
    "gate": (lambda a: a | {"head_gate": torch.zeros(2, 5).double()}, ValueError, "head_gate must"),
    "lengths type": (lambda a: a | {"lengths": torch.ones(2)}, TypeError, "lengths must be int32"),
    "lengths shape": (
        lambda a: a | {"lengths": torch.tensor([1])},
        ValueError,
        "lengths must have",
    ),
    "lengths": (lambda a: a | {"lengths": torch.tensor([1, 8])}, ValueError, r"lengths.*\[0, 7\]"),
}


@pytest.mark.refuses
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named_with_value_and_rule(case):
    change, error, message = BAD[case]
    q, k, v = tensors()
    arguments = change({"q": q, "k": k, "v": v})
    with pytest.raises(error, match=message):
        attention(arguments.pop("q"), arguments.pop("k"), arguments.pop("v"), **arguments)


@pytest.mark.refuses
def test_bad_row_and_mean_are_refused():
    q, k, _ = tensors()
    with pytest.raises(ValueError, match=r"row must be in \[-5, 5\), got 5"):
        attention_row(q, k, 5)
    with pytest.raises(ValueError, match="over must be 'heads' or 'queries', got 'keys'"):
        attention_mean(q, k, "keys")


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"mask": [[True]]}, TypeError), ({"lengths": [1, 2]}, TypeError),
        ({"lengths": 3}, TypeError), ({"lengths": torch.ones(2)}, TypeError),
        ({"window": 1.5}, TypeError), ({"window": (None, 0)}, TypeError),
        ({"window": (1, 2, 3)}, ValueError), ({"window": True}, TypeError),
        ({"bias": 0.5}, TypeError), ({"bias": [[0.0]]}, TypeError),
        ({"head_gate": 1.0}, TypeError), ({"causal": None}, TypeError),
        ({"causal": torch.tensor(True)}, TypeError), ({"dropout": "0.1"}, ValueError),
        ({"scale": "1"}, ValueError), ({"k_head_map": 1}, TypeError),
        ({"v_head_map": [0.0, 1.0]}, TypeError), ({"k_head_map": [None, 0]}, TypeError),
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_kind_are_named(wrong, kind):
    q = torch.randn(2, 2, 5, 8)
    with pytest.raises(kind, match=next(iter(wrong))):
        attention(q, q, q, **wrong)
