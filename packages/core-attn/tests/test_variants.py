from dataclasses import dataclass

import pytest

from core_attn.variants import variant


@dataclass(frozen=True)
class A:
    depth: int = 2
    dim: int = 8

    def __post_init__(self):
        if self.dim % self.depth:
            raise ValueError(f"dim {self.dim} is not divisible by depth {self.depth}")

    def build(self):
        return ("A", self.depth, self.dim)


@dataclass(frozen=True)
class B(A):
    table: str = "x"
    name: str = "y"

    def build(self):
        return ("B", self.name, self.table)


TABLE = {"a_tiny": A(), "a_small": A(depth=4), "b_tiny": B()}


def test_a_name_gives_its_configuration_with_changes():
    assert variant(TABLE, "a_small").build() == ("A", 4, 8)
    assert variant(TABLE, "a_small", dim=12).build() == ("A", 4, 12)
    assert variant(TABLE, "b_tiny", name="n", table="t").build() == ("B", "n", "t")
    assert TABLE["a_small"] == A(depth=4)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("a_smal", {}, "no model is named 'a_smal'; did you mean 'a_small'? there are a_small"),
        ("qqq", {}, "no model is named 'qqq'; there are a_small, a_tiny, b_tiny"),
        ("a_tiny", {"depht": 3}, "a_tiny has no setting 'depht'; did you mean 'depth'? settings:"),
        ("a_tiny", {"name": 3}, "a_tiny has no setting 'name'; settings: depth, dim"),
        ("a_tiny", {"depth": 3}, "dim 8 is not divisible by depth 3"),
    ],
)
def test_an_unknown_name_or_setting_is_refused(name, changes, said):
    with pytest.raises(ValueError) as refused:
        variant(TABLE, name, **changes)
    assert str(refused.value).startswith(said)
