"""Random-feature attention, plain and biased, and the two-layer network it is compared with."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core_attn import relu_attention

from ..linalg import RidgeSystem
from .data import Inputs

CHUNK = 2**24  # numbers in flight while features are made


@dataclass(frozen=True)
class RFAConfig:
    """Shape of a model.

    Attributes:
        d: width of queries and keys.
        heads: M.
        biased: whether the frozen weights have the mean diag(I, 0), so that scores have the mean
            <x_0, x_i>.
    """

    d: int
    heads: int
    biased: bool = False

    def __post_init__(self):
        for name in ("d", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class RandomFeatureAttention:
    """f(x) = sum_m <v_m, (1/N) sum_i relu(x~_0^T W_m x~_i) x~_i>, with W frozen and v fitted.

    Entries of W have variance 1/4 (recalled): on the unit sphere every score then has variance 1.

    Args:
        config: the shape.
        generator: draws the frozen weights.

    Source: Fu et al., 2023, arXiv 2307.11353, sec. 2.

    Example:
        >>> from attn_theory.random_feature_attention import sphere
        >>> model = RandomFeatureAttention(RFAConfig(d=3, heads=5))
        >>> model.features(sphere(2, 4, 3)).shape
        torch.Size([2, 5, 4])
    """

    def __init__(self, config: RFAConfig, generator: torch.Generator | None = None):
        self.config = config
        width = config.d + 1
        device = "cpu" if generator is None else generator.device
        shape = (config.heads, width, width)
        self.weight = 0.5 * torch.randn(*shape, generator=generator, device=device)
        if config.biased:
            self.weight.diagonal(dim1=-2, dim2=-1)[:, :-1] += 1
        self.values: Float[Tensor, "heads width"] | None = None

    @property
    def parameters(self) -> int:
        """How many numbers are fitted."""
        return self.config.heads * (self.config.d + 1)

    def features(
        self, inputs: Inputs, heads: slice = slice(None)
    ) -> Float[Tensor, "samples heads width"]:
        """phi_m of every head, or of some."""
        query, keys = inputs.lifted()
        if query.shape[-1] != self.config.d + 1:
            raise ValueError(f"inputs have d = {query.shape[-1] - 1}, the model {self.config.d}")
        weight = self.weight[heads].to(query)
        asked = (query @ weight.transpose(0, 1).flatten(1)).view(len(query), len(weight), 1, -1)
        tokens = keys.unsqueeze(1)
        return relu_attention(asked, tokens, tokens).squeeze(2)

    def chunks(self, inputs: Inputs) -> Iterator[Float[Tensor, "samples columns"]]:
        """The features divided by sqrt(M), as columns of some heads at a time."""
        samples, keys, width = *inputs.keys.shape[:2], self.config.d + 1
        step = max(1, CHUNK // (samples * max(keys, width)))
        for start in range(0, self.config.heads, step):
            part = self.features(inputs, slice(start, start + step))
            yield part.flatten(1) / self.config.heads**0.5

    def fit(self, inputs: Inputs, y: Float[Tensor, " samples"], ridge: float) -> None:
        """Ridge regression on the features as they are: (1/n) |F v - y|^2 + ridge |v|^2.

        Raises:
            ValueError: labels that are not finite, too few of them, or a singular system.
        """
        f = self.features(inputs).flatten(1).double()
        n, p = f.shape
        y = y.double().unsqueeze(1)
        if p <= n:
            solution = RidgeSystem(f.T @ f, f.T @ y, n).solve(ridge)
        else:
            solution = f.T @ RidgeSystem(f @ f.T, y, n).solve(ridge)
        self.values = solution.view(self.config.heads, -1)

    def predict(self, inputs: Inputs) -> Float[Tensor, " samples"]:
        """The fitted function.

        Raises:
            ValueError: `fit` has not been called.
        """
        if self.values is None:
            raise ValueError("the model has not been fitted; call fit first")
        features = self.features(inputs).to(self.values)
        return torch.einsum("nmw,mw->n", features, self.values)


class RandomFeatureMLP:
    """f = sum_k a_k relu(<w_k, [x_0; x_1; ..; x_N; 1]>) with w ~ N(0, I/(N+2)) frozen.

    The scale gives unit variance on the sphere; the paper's was not found.

    Args:
        d: features of a token.
        keys: tokens beside the query.
        hidden: as many as random-feature attention has parameters, for a fair match.
        generator: draws the frozen weights.

    Example:
        >>> from attn_theory.random_feature_attention import sphere
        >>> features = torch.cat([*RandomFeatureMLP(3, 4, 10).chunks(sphere(2, 4, 3))], 1)
        >>> features.shape
        torch.Size([2, 10])
    """

    def __init__(self, d: int, keys: int, hidden: int, generator: torch.Generator | None = None):
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        device = "cpu" if generator is None else generator.device
        width = (keys + 1) * d + 1
        draw = torch.randn(width, hidden, generator=generator, device=device)
        self.weight = draw / (keys + 2) ** 0.5

    @property
    def parameters(self) -> int:
        """How many numbers are fitted."""
        return self.weight.shape[1]

    def chunks(self, inputs: Inputs) -> Iterator[Float[Tensor, "samples columns"]]:
        """The features divided by sqrt(hidden), some columns at a time."""
        samples = len(inputs.query)
        x = torch.cat((inputs.query, inputs.keys.flatten(1), torch.ones(samples, 1)), 1)
        step = max(1, CHUNK // samples)
        for start in range(0, self.parameters, step):
            yield (x @ self.weight[:, start : start + step]).relu() / self.parameters**0.5


def gram(
    model: RandomFeatureAttention | RandomFeatureMLP, inputs: Inputs, train: int
) -> Float[Tensor, "samples train"]:
    """Inner products of all samples' features with those of the first `train`, in float64.

    The features are made a few heads at a time and never held together.

    Example:
        >>> from attn_theory.random_feature_attention import sphere
        >>> gram(RandomFeatureAttention(RFAConfig(3, 5)), sphere(6, 4, 3), 2).shape
        torch.Size([6, 2])
    """
    out = torch.zeros(len(inputs.query), train, dtype=torch.float64, device=inputs.query.device)
    for part in model.chunks(inputs):
        wide = part.double()
        out.addmm_(wide, wide[:train].T)
    return out


def check_memory(samples: int, parameters: int, limit: float = 6e9) -> None:
    """Refuses a fit whose matrices would not fit in memory.

    Raises:
        ValueError: naming the bytes and what to change.

    Example:
        >>> check_memory(1000, 1000)
    """
    size = min(samples, parameters)
    need = 8.0 * (2 * size * size + samples * size)
    if need > limit:
        raise ValueError(
            f"the fit needs about {need / 1e9:.1f} GB for {samples} samples and {parameters} "
            f"parameters, the limit is {limit / 1e9:.1f} GB; lower M or n"
        )
