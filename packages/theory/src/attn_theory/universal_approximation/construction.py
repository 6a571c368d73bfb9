"""The constructive approximation: weights in closed form and a certified bound on the sup error.

Attention copies every token into every position. A multivariate Jackson polynomial of the target
is written as a sum of cosines along integer directions, and each direction's one-dimensional
function is replaced by its piecewise-linear interpolant: a sum of ReLUs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import dctn

from . import jackson
from .model import SingleLayerTransformer, TransformerConfig

Function = Callable[[Float[np.ndarray, "points tokens"]], Float[np.ndarray, "points tokens"]]
INTERPOLATION_SHARE = 0.07  # of the Jackson term


@dataclass(frozen=True)
class Ridge:
    """One direction's piecewise-linear function of s = <direction, x>."""

    direction: tuple[int, ...]
    knots: Float[np.ndarray, " knots"]
    values: Float[np.ndarray, " knots"]

    def units(self) -> tuple[Float[np.ndarray, " units"], Float[np.ndarray, " units"]]:
        """Left knots and slope changes: values[0] + sum change relu(s - left)."""
        slopes = np.diff(self.values) / np.diff(self.knots)
        return self.knots[:-1], np.diff(slopes, prepend=0.0)


@dataclass(frozen=True)
class Output:
    """The function of one position: a constant, its ridges, and the terms of its bound."""

    constant: float
    ridges: tuple[Ridge, ...]
    jackson: float
    interpolation: float

    @property
    def hidden(self) -> int:
        """ReLUs."""
        return sum(len(ridge.knots) - 1 for ridge in self.ridges)


@dataclass(frozen=True)
class Construction:
    """A single-layer Transformer in closed form.

    Attributes:
        outputs: the function of each position.
        sharpness: B, the logit by which a head prefers its token.
        certified: whether Lipschitz constants were given.
    """

    outputs: tuple[Output, ...]
    sharpness: float
    certified: bool

    @property
    def tokens(self) -> int:
        """n."""
        return len(self.outputs)

    @property
    def hidden(self) -> int:
        """ReLUs of all positions together."""
        return sum(output.hidden for output in self.outputs)

    @property
    def leak(self) -> float:
        """How far a copied token may be from the original."""
        rest = (self.tokens - 1) * np.exp(-self.sharpness)
        return float(rest / (1 + rest))

    def bound(self) -> Float[np.ndarray, " tokens"]:
        """Certified sup error of each position: Jackson + interpolation + leak.

        Raises:
            ValueError: it was built without Lipschitz constants.
        """
        if not self.certified:
            raise ValueError("a certificate needs Lipschitz constants; pass lipschitz=")
        return np.array(
            [
                out.jackson + out.interpolation + self.leak * _network_lipschitz(out)
                for out in self.outputs
            ]
        )

    def __call__(self, x: Float[np.ndarray, "points tokens"]) -> Float[np.ndarray, "points tokens"]:
        """The closed form, without the attention's leak.

        Raises:
            ValueError: a point is outside [0, 1]^n, where no bound holds.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.min() < 0 or x.max() > 1:
            raise ValueError(
                f"inputs must be in [0, 1]: the bound does not hold outside, got values from "
                f"{x.min():.4g} to {x.max():.4g}"
            )
        columns = []
        for out in self.outputs:
            total = np.full(len(x), out.constant)
            for ridge in out.ridges:
                total += np.interp(x @ np.array(ridge.direction), ridge.knots, ridge.values)
            columns.append(total)
        return np.stack(columns, 1)

    @torch.no_grad()
    def transformer(self) -> SingleLayerTransformer:
        """The weights, in float64. The stream holds x, the position, and a slot for every token."""
        n = self.tokens
        config = TransformerConfig(n, 1 + 2 * n, n, 1, self.hidden + n)
        model = SingleLayerTransformer(config).double()
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight[0] = 1
        model.position[:, 1 : 1 + n] = torch.eye(n)
        attention, heads = model.attention, torch.arange(n)
        attention.qkv.bias[:n] = 1
        attention.qkv.weight[n + heads, 1 + heads] = self.sharpness
        attention.qkv.weight[2 * n + heads, 0] = 1
        attention.proj.weight[1 + n + heads, heads] = 1
        first, last = model.hidden, model.output
        row = 0
        for i, out in enumerate(self.outputs):
            level = out.constant
            for ridge in out.ridges:
                left, change = (torch.from_numpy(a) for a in ridge.units())
                rows = slice(row, row + len(left))
                direction = torch.tensor(ridge.direction, dtype=torch.float64)
                first.weight[rows, 1 + n :] = direction
                # Units of other positions are pushed below zero.
                gate = direction.abs().sum() + left.abs().max()
                first.weight[rows, 1 + i] = gate
                first.bias[rows] = -left - gate
                last.weight[0, rows] = change
                level += ridge.values[0]
                row += len(left)
            first.weight[row, 1 + i] = 1
            last.weight[0, row] = level
            row += 1
        return model


def approximate(
    f: Function,
    tokens: int,
    degree: int,
    *,
    lipschitz: Sequence[Sequence[float]] | None = None,
    certificate: bool = True,
    grid: int | None = None,
    sharpness: float = 30.0,
) -> Construction:
    """Builds the Transformer for a function from [0, 1]^n to R^n.

    For tokens of several coordinates, count every coordinate as a token.

    Args:
        f: maps (points, tokens) to (points, tokens).
        tokens: n, at most 4.
        degree: of the polynomial; even. The error falls as 1/degree, the width grows as
            degree^(2n) at most.
        lipschitz: constants of each output along each input axis, (tokens, tokens).
        certificate: whether a bound is wanted; it needs `lipschitz`.
        grid: points per axis for the coefficients; 512 for n = 2, fewer for more.
        sharpness: logit of the copying heads.

    Raises:
        ValueError: what is asked for is too large, a constant is missing, or f misbehaves.

    Example:
        >>> import numpy as np
        >>> swap = lambda x: x[:, ::-1]
        >>> t = approximate(swap, 2, 8, lipschitz=[[0, 1], [1, 0]])
        >>> x = np.random.default_rng(0).random((100, 2))
        >>> bool((np.abs(t(x) - swap(x)).max(0) <= t.bound()).all())
        True
    """
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {tokens}")
    if tokens > 4:
        raise ValueError(
            f"n*d = {tokens} coordinates are above 4: the width grows like degree^(2 n d), about "
            f"{float(degree) ** (2 * tokens):.1e} here"
        )
    rho = jackson.factors(degree)
    if lipschitz is None and certificate:
        raise ValueError("a certificate needs them; pass lipschitz= or certificate=False")
    if lipschitz is not None and np.shape(lipschitz) != (tokens, tokens):
        raise ValueError(f"lipschitz must have shape {(tokens, tokens)}, got {np.shape(lipschitz)}")
    grid = grid or max(2 * degree + 2, {1: 4096, 2: 512, 3: 96, 4: 32}[tokens])
    if grid <= degree:
        raise ValueError(f"grid must exceed the degree {degree}, got {grid}")
    values = _sampled(f, tokens, grid)
    distance = jackson.mean_distance(degree, grid)
    outputs = []
    for i in range(tokens):
        coefficients = _coefficients(values[..., i], degree)
        for axis in range(tokens):
            coefficients *= rho.reshape([-1 if a == axis else 1 for a in range(tokens)])
        term = 0.0 if lipschitz is None else float(np.sum(lipschitz[i])) * distance / np.pi
        # Without constants the interpolation is as fine as for slopes of the values' range.
        scale = term or float(np.ptp(values[..., i])) * distance / np.pi or 1.0
        constant, ridges, interpolation = _ridges(coefficients, INTERPOLATION_SHARE * scale)
        outputs.append(Output(constant, ridges, term, interpolation))
    return Construction(tuple(outputs), sharpness, lipschitz is not None)


def degree_for(eps: float, lipschitz: Sequence[Sequence[float]]) -> int:
    """The least even degree whose certificate is below eps.

    Raises:
        ValueError: eps is not positive.

    Example:
        >>> degree_for(0.25, [[1, 1], [1, 1]])
        6
    """
    if eps <= 0:
        raise ValueError(f"eps must be positive, got {eps}")
    most = max(float(np.sum(row)) for row in lipschitz)
    degree = 2
    while most * jackson.mean_distance(degree, 512) / np.pi * (1 + INTERPOLATION_SHARE) > eps:
        degree += 2
        if degree > 400:
            raise ValueError(f"eps = {eps} needs a degree above 400")
    return degree


def _sampled(f: Function, tokens: int, grid: int) -> Float[np.ndarray, "..."]:
    """f on the midpoints of a grid, in theta = pi x."""
    axis = (np.arange(grid) + 0.5) / grid
    points = np.stack(np.meshgrid(*[axis] * tokens, indexing="ij"), -1).reshape(-1, tokens)
    values = np.asarray(f(points), dtype=np.float64)
    if values.shape != points.shape:
        raise ValueError(f"f must map {points.shape} to the same shape, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("f must be finite on [0, 1]^n")
    return values.reshape(*[grid] * tokens, tokens)


def _coefficients(values: Float[np.ndarray, "..."], degree: int) -> Float[np.ndarray, "..."]:
    """Cosine coefficients up to the degree along every axis, by midpoint quadrature."""
    kept = np.asarray(dctn(values, type=2)) / np.prod(values.shape)
    kept = kept[tuple(slice(degree + 1) for _ in values.shape)]
    for axis in range(values.ndim):
        first = [slice(None)] * values.ndim
        first[axis] = slice(1)
        kept[tuple(first)] /= 2
    return kept


def _ridges(
    coefficients: Float[np.ndarray, "..."], budget: float
) -> tuple[float, tuple[Ridge, ...], float]:
    """The constant, the interpolated ridges, and the bound on their interpolation error."""
    directions: dict[tuple[int, ...], dict[int, float]] = {}
    constant = 0.0
    for index, value in np.ndenumerate(coefficients):
        axes = [a for a, k in enumerate(index) if k]
        if not axes:
            constant = float(value)
            continue
        # cos a cos b = (cos(a + b) + cos(a - b)) / 2, again for every further factor.
        for signs in product((1, -1), repeat=len(axes) - 1):
            vector = [0] * len(index)
            for axis, sign in zip(axes, (1, *signs), strict=True):
                vector[axis] = sign * index[axis]
            g = gcd(*vector)
            harmonics = directions.setdefault(tuple(v // g for v in vector), {})
            harmonics[g] = harmonics.get(g, 0.0) + value / 2 ** (len(axes) - 1)
    spans = {u: (sum(min(k, 0) for k in u), sum(max(k, 0) for k in u)) for u in directions}
    roughness = {
        u: sum(
            abs(a) * (np.pi * g * (spans[u][1] - spans[u][0])) ** 2 / 8 for g, a in terms.items()
        )
        for u, terms in directions.items()
    }
    density = np.sqrt(sum(e ** (1 / 3) for e in roughness.values()) / budget)
    ridges, error = [], 0.0
    for u, terms in directions.items():
        if roughness[u] == 0:
            continue
        intervals = max(1, int(np.ceil(density * roughness[u] ** (1 / 3))))
        knots = np.linspace(*spans[u], intervals + 1)
        orders, sizes = np.array(list(terms)), np.array(list(terms.values()))
        values = sizes @ np.cos(np.pi * orders[:, None] * knots)
        ridges.append(Ridge(u, knots, values))
        error += roughness[u] / intervals**2
    return constant, tuple(ridges), error


def _network_lipschitz(out: Output) -> float:
    """sum over units of |output weight| |input weights|_1."""
    total = 0.0
    for ridge in out.ridges:
        _, change = ridge.units()
        total += np.abs(change).sum() * np.abs(ridge.direction).sum()
    return float(total)


def evaluate(
    model: SingleLayerTransformer, x: Float[np.ndarray, "points tokens"], chunk: int = 2**24
) -> Float[np.ndarray, "points tokens"]:
    """The block's output, a few points at a time.

    Example:
        >>> import numpy as np
        >>> model = SingleLayerTransformer(TransformerConfig(2))
        >>> evaluate(model, np.zeros((3, 2))).shape
        (3, 2)
    """
    dtype = model.embed.weight.dtype
    rows = max(1, chunk // (model.config.hidden * model.config.tokens))
    with torch.no_grad():
        parts = [model(part) for part in torch.tensor(x, dtype=dtype).split(rows)]
    return torch.cat(parts).double().numpy()


def grid_points(tokens: int, per_axis: int) -> Float[np.ndarray, "points tokens"]:
    """A regular grid on [0, 1]^n with its corners.

    Example:
        >>> grid_points(2, 3).shape
        (9, 2)
    """
    axis = np.linspace(0, 1, per_axis)
    return np.stack(np.meshgrid(*[axis] * tokens, indexing="ij"), -1).reshape(-1, tokens)
