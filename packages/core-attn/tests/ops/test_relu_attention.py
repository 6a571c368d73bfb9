import pytest
import torch

from core_attn import relu_attention, why


def inputs(k_heads=1, grad=False):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        x = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return x.requires_grad_(grad)

    return draw(2, 3, 2, 4), draw(2, k_heads, 5, 4), draw(2, k_heads, 5, 3)


@pytest.mark.parametrize("k_heads", [1, 3])
def test_it_is_the_mean_of_rectified_scores_times_values(k_heads):
    q, k, v = inputs(k_heads)
    expected = torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    for b in range(2):
        for h in range(3):
            g = h if k_heads == 3 else 0
            for t in range(2):
                for i in range(5):
                    expected[b, h, t] += (q[b, h, t] @ k[b, g, i]).relu() * v[b, g, i] / 5
    torch.testing.assert_close(relu_attention(q, k, v), expected)


@pytest.mark.parametrize("k_heads", [1, 3])
def test_gradients(k_heads):
    assert torch.autograd.gradcheck(relu_attention, inputs(k_heads, grad=True))
    assert torch.autograd.gradgradcheck(relu_attention, inputs(k_heads, grad=True))


def test_order_of_keys_does_not_matter():
    q, k, v = inputs()
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = relu_attention(q, k[:, :, order], v[:, :, order])
    torch.testing.assert_close(shuffled, relu_attention(q, k, v))


def test_the_dispatcher_names_it():
    assert why(relu_attention, *inputs())[0].backend == "reference"


@pytest.mark.refuses
def test_what_does_not_fit_is_named():
    q, k, v = inputs()
    with pytest.raises(ValueError, match="at least 1 key"):
        relu_attention(q, k[:, :, :0], v[:, :, :0])
    with pytest.raises(ValueError, match="1 or 3 heads"):
        relu_attention(q, k.expand(2, 2, 5, 4), v)
    with pytest.raises(ValueError, match="head dim"):
        relu_attention(q, k[..., :3], v)
    with pytest.raises(ValueError, match="tokens"):
        relu_attention(q, k, v[:, :, :4])
