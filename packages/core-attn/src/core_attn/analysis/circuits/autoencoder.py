"""One sparse autoencoder for the outputs of all heads."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class HeadAutoencoder(nn.Module):
    """code = ReLU(E (x - b) + c), output D code + b, with rows of E and D of length 1.

    The rows of D, as those of E, are normalized: D's run over the features, so it is not the
    dictionary's vectors that have length 1. That is how the authors' code has it. Rows are
    normalized at the start of every forward pass, and gradients lose their part along each row.

    Args:
        dim: features of a head's output.
        features: numbers of a code.
        center: the initial b; zeros by default.

    Source: O'Neill & Bui, 2024, arXiv 2405.12522, and the authors' code.

    Example:
        >>> code, decoded = HeadAutoencoder(8, features=12)(torch.randn(4, 3, 8))
        >>> code.shape, decoded.shape
        (torch.Size([4, 3, 12]), torch.Size([4, 3, 8]))
    """

    def __init__(self, dim: int, features: int = 200, center: Float[Tensor, " dim"] | None = None):
        super().__init__()
        self.encoder = nn.Linear(dim, features)
        self.decoder = nn.Linear(features, dim, bias=False)
        self.center = nn.Parameter(torch.zeros(dim) if center is None else center.clone())
        nn.init.uniform_(self.encoder.bias, -(dim**-0.5), dim**-0.5)
        for weight in (self.encoder.weight, self.decoder.weight):
            nn.init.normal_(weight)
            weight.register_hook(lambda grad, weight=weight: _across(grad, weight))
        self.normalize()

    @torch.no_grad()
    def normalize(self) -> None:
        """Gives every row of both matrices length 1."""
        for weight in (self.encoder.weight, self.decoder.weight):
            weight.div_(weight.norm(dim=-1, keepdim=True))

    def forward(
        self, x: Float[Tensor, "*batch dim"]
    ) -> tuple[Float[Tensor, "*batch features"], Float[Tensor, "*batch dim"]]:
        """The codes and what is decoded from them."""
        self.normalize()
        code = self.encoder(x - self.center).relu()
        return code, self.decoder(code) + self.center

    @torch.no_grad()
    def discrete(self, x: Float[Tensor, "*batch dim"]) -> Int[Tensor, "*batch"]:
        """The number of the largest feature; 0 where no feature is active."""
        return self(x)[0].argmax(-1)

    def loss(self, x: Float[Tensor, "*batch dim"], sparsity: float) -> Float[Tensor, ""]:
        """Mean squared error plus `sparsity` times the mean l1 norm of a code."""
        code, decoded = self(x)
        return (decoded - x).square().mean() + sparsity * code.abs().sum(-1).mean()


def train(
    model: HeadAutoencoder,
    x: Float[Tensor, "examples heads dim"],
    *,
    steps: int = 500,
    lr: float = 1e-3,
    sparsity: float = 0.02,
) -> HeadAutoencoder:
    """Fits the autoencoder by full-batch Adam, in place, and returns it.

    Args:
        model: to be trained.
        x: outputs of the heads; ten examples are enough.
        steps: of the optimizer.
        lr: its rate.
        sparsity: of the codes; the authors take 0.02, and 0.05 for the docstring task.

    Example:
        >>> x = torch.randn(4, 3, 8)
        >>> model = HeadAutoencoder(8, features=12)
        >>> before = model.loss(x, 0.02)
        >>> bool(train(model, x, steps=20, lr=0.01).loss(x, 0.02) < before)
        True
    """
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x, sparsity).backward()
        optimizer.step()
    model.normalize()
    return model


def _across(grad: Tensor, weight: Tensor) -> Tensor:
    unit = weight.detach() / weight.detach().norm(dim=-1, keepdim=True)
    return grad - (grad * unit).sum(-1, keepdim=True) * unit
