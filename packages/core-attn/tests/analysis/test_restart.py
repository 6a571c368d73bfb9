import pytest
import torch
from torch import nn

from core_attn import MultiHeadAttention
from core_attn.analysis import Bench, Chain, find_sites, head_importance


class Block(nn.Module):
    """Gives a pair, as blocks with a state do, and counts how often it runs."""

    runs = 0

    def __init__(self):
        super().__init__()
        self.attn = MultiHeadAttention(8, heads=2)

    def forward(self, x, number):
        Block.runs += 1
        return x + self.attn(x), number + 1


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x):
        number = 0
        for block in self.blocks:
            x, number = block(x, number)
        return x + number


def test_heads_are_removed_from_their_block_on_only():
    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(2, 5, 8)
    blocks = list(model.blocks)
    Block.runs = 0
    found = head_importance(Bench(model, [(x, None)]))
    assert Block.runs == 3 + 1 + 2 * (3 + 2 + 1)  # whole, a check, two heads of each
    assert list(model.blocks) == blocks
    for layer, name in enumerate(find_sites(model)):
        with Bench(model, [(x, None)]).removed([(name, 1)]), torch.no_grad():
            changed = model(x)
        right = (changed - model(x)).square().flatten(1).mean(1)
        torch.testing.assert_close(found.values["output_change"][:, layer, 1], right)


def test_blocks_that_are_no_chain_are_run_whole():
    class Sum(Model):
        def forward(self, x):  # each block sees the input
            return sum(block(x, 0)[0] for block in reversed(self.blocks))

    model, x = Sum().eval(), torch.randn(1, 4, 8)
    chain = Chain(model, find_sites(model))
    assert set(chain.block_of.values()) == {0, 1, 2}
    found = head_importance(Bench(model, [(x, None)]))
    with Bench(model, [(x, None)]).removed([("blocks.0.attn", 0)]), torch.no_grad():
        right = (model(x) - model.blocks[0](x, 0)[0]).square().mean()
    assert float(right) >= 0 and bool((found.values["output_change"] > 0).all())


class Stem(nn.Linear):
    runs = 0

    def forward(self, x):
        Stem.runs += 1
        return super().forward(x)


@pytest.mark.parametrize("in_place", [False, True])
def test_what_stands_before_the_blocks_runs_for_the_first_block_only(in_place):
    class Whole(Model):
        def __init__(self):
            super().__init__()
            self.stem = Stem(8, 8)

        def forward(self, x):
            x = self.stem(x)
            x = x.mul_(2) if in_place else x * self.stem.out_features / 4
            return super().forward(x)

    torch.manual_seed(0)
    model, x = Whole().eval(), torch.randn(1, 4, 8)
    Stem.runs = 0
    found = head_importance(Bench(model, [(x, None)])).values["output_change"]
    assert Stem.runs == 1 + 2  # whole, two heads of the first block
    assert isinstance(model.stem, Stem)
    for layer, name in enumerate(find_sites(model)):
        with Bench(model, [(x, None)]).removed([(name, 0)]), torch.no_grad():
            right = model(x)
        with torch.no_grad():
            right = (right - model(x)).square().flatten(1).mean(1)
        torch.testing.assert_close(found[:, layer, 0], right)
