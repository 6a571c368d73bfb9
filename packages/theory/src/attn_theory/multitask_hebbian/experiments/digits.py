"""F10: class means of scanned digits as diluted archetypes (ours; no claim of the paper)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from ... import plotting
from ...catalog import entry
from ...experiment import Arrays, Check, Config, Experiment, Result, at_least
from ...seeds import numpy_generator
from ...tables import Tidy
from ..dynamics import glauber
from ..model import Network


@dataclass(frozen=True, kw_only=True)
class Digits(Config):
    """Pairs of classes stored together; pixels whose class mean is undecided are blank.

    Attributes:
        margin: |mean| below which a pixel is blank.
        first, second: the classes.
    """

    margin: float = 0.5
    first: int = 0
    second: int = 1
    tests: int = 100


def archetypes(margin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Archetypes (pixels, classes) of the first half, and images and labels of the second.

    Example:
        >>> xi, images, labels = archetypes(0.5)
        >>> xi.shape, images.shape[1]
        ((64, 10), 64)
    """
    data: Any = load_digits()
    spins, labels = np.where(data.data > 7.5, 1.0, -1.0), data.target
    half = len(spins) // 2
    means = np.stack([spins[:half][labels[:half] == c].mean(0) for c in range(10)], 1)
    return np.where(np.abs(means) < margin, 0.0, np.sign(means)), spins[half:], labels[half:]


def measure(config: Digits, point: None) -> Arrays:
    """Test images of two classes relaxed in a network that stores both."""
    xi, images, labels = archetypes(config.margin)
    pair = xi[:, [config.first, config.second]]
    chosen = np.isin(labels, (config.first, config.second))
    images, labels = images[chosen][: config.tests], labels[chosen][: config.tests]
    replicas = np.repeat(pair[:, None], len(images), 1)
    rng = numpy_generator(config.stream, "digits")
    last = glauber(rng, Network.storing(replicas), images.T, np.inf, 5).spins
    before, after = (np.einsum("nk,nr->rk", pair, s) / (pair != 0).sum(0) for s in (images.T, last))
    truth = (labels == config.second).astype(int)
    return {
        "archetypes": xi,
        "before": before,
        "after": after,
        "truth": truth,
        "right": float((after.argmax(1) == truth).mean()),
        "blank": float((xi == 0).mean()),
        "example": images[0],
        "relaxed": last[:, 0],
    }


def checks(result: Result) -> list[Check]:
    """The network settles on the class of the image."""
    part = result.parts[0]
    rows = np.arange(len(part["truth"]))
    own = part["after"][rows, part["truth"]]
    return [
        at_least("share of images that settle on their class", part["right"], 0.9, "chosen"),
        at_least("mean overlap with the class after relaxing", own.mean(), 0.9, "chosen"),
    ]


def draw(result: Result):
    """Archetypes and one relaxation."""
    figure, axes = plotting.panels(2, 6, width=1.5, height=1.7)
    part, config = result.parts[0], result.config
    pictures = [(part["archetypes"][:, c], f"class {c}") for c in range(10)]
    pictures += [(part["example"], "test image"), (part["relaxed"], "relaxed")]
    for ax, (picture, title) in zip(axes.flat, pictures, strict=True):
        plotting.heatmap(ax, picture.reshape(8, 8), title=title, limit=1)
        ax.set(xticks=[], yticks=[])
    figure.suptitle(
        f"archetypes ({part['blank']:.0%} blank); stored: {config.first} and {config.second}; "
        f"{part['right']:.0%} of test images settle on their class", fontsize=9,
    )  # fmt: skip
    return figure


EXPERIMENT = Experiment(
    entry("multitask_hebbian.digits"),
    Digits(),
    Digits(),
    measure,
    checks,
    draw,
    Tidy({"truth": "image", "before": "image pattern", "after": "image pattern"}),
    more={"pictures": Tidy({"archetypes": "pixel class", "example": "pixel", "relaxed": "pixel"})},
    work=lambda c: c.tests,
)
