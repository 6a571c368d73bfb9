"""A trained network with what turns its numbers into electronvolts, and its file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from ase.data import chemical_symbols
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .graph import Batch, Pairs
from .models import BaseConfig, EScAIPConfig, EScAIPV1Config, Network

WEIGHTS = Path(__file__).parent / "weights"
CONFIGS = {"v1": EScAIPV1Config, "v2": EScAIPConfig}
FORMAT = "attn-molecular 1"
_DRAWING = Lock()


@dataclass(frozen=True)
class Result:
    """Energies in eV, forces in eV/A and stress in eV/A^3 (tension positive), in float64.

    Attributes:
        energy: (structures).
        energies: (atoms), which sum to the energy.
        forces: (atoms, 3), if asked.
        stress: (structures, 3, 3), if asked.
    """

    energy: Float[Tensor, " structures"]
    energies: Float[Tensor, " atoms"]
    forces: Float[Tensor, "atoms 3"] | None
    stress: Float[Tensor, "structures 3 3"] | None


class Potential(nn.Module):
    """energy = sum over atoms of reference[Z], added in float64, + scale * network.

    Args:
        network: the network, trained on (energy - references) / scale.
        references: energy of each atomic number, in eV, from 0 to the network's last.
        scale: eV.
        known: atomic numbers it was trained on; None for all.
        card: what a user should know: data, licence, errors, what it must not be used for.

    Example:
        >>> from ase.build import molecule
        >>> from attn_molecular import create
        >>> potential = Potential(create("escaip_tiny").eval(), torch.zeros(119))
        >>> potential(Batch.from_atoms([molecule("CH4")])).forces.dtype
        torch.float64
    """

    references: Tensor
    scale: Tensor
    known: Tensor

    def __init__(
        self,
        network: Network,
        references: Float[Tensor, " elements"],
        scale: float = 1.0,
        known: Sequence[int] | None = None,
        card: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        elements = network.config.elements
        if references.shape != (elements,):
            raise ValueError(
                f"references must have shape ({elements},), one per atomic number from 0, "
                f"got {tuple(references.shape)}"
            )
        self.network = network
        self.register_buffer("references", references.double())
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))
        mask = torch.ones(elements, dtype=torch.bool)
        if known is not None:
            mask = torch.zeros(elements, dtype=torch.bool)
            mask[list(known)] = True
        self.register_buffer("known", mask)
        self.card = dict(card or {})

    def _apply(self, fn, recurse=True):
        """Moves between devices; references and scale stay in float64 whatever the network is."""
        super()._apply(fn, recurse)
        self.references, self.scale = self.references.double(), self.scale.double()
        return self

    def forward(
        self,
        batch: Batch,
        *,
        forces: bool = True,
        stress: bool = False,
        pairs: Pairs | None = None,
        create_graph: bool = False,
        memory: float | None = None,
    ) -> Result:
        """Predicts; arguments are those of the network.

        Raises:
            ValueError: an element it was not trained on, or as the network.
        """
        self.check(batch.numbers)
        seen = self.network(
            batch, forces=forces, stress=stress, pairs=pairs, create_graph=create_graph,
            memory=memory,
        )  # fmt: skip
        energies = self.scale * seen.energies.double() + self.references[batch.numbers]
        energy = energies.new_zeros(len(batch)).index_add(0, batch.system, energies)
        return Result(
            energy,
            energies,
            None if seen.forces is None else self.scale * seen.forces.double(),
            None if seen.stress is None else self.scale * seen.stress.double(),
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the network, which training calls without this."""
        self.network.compile(*args, **kwargs)

    def check(self, numbers: Tensor) -> None:
        """Requires elements of the training set.

        Raises:
            ValueError: naming one that is not.
        """
        inside = (numbers >= 1) & (numbers < len(self.known))
        inside = inside & self.known[numbers.clamp(0, len(self.known) - 1)]
        if not bool(inside.all()):
            z = int(numbers[~inside][0])
            symbol = chemical_symbols[z] if 0 < z < len(chemical_symbols) else "X"
            raise ValueError(
                f"element {symbol} (Z={z}) was not in this model's training set, which has "
                f"{', '.join(self.symbols) or 'none'}"
            )

    @property
    def symbols(self) -> list[str]:
        """The elements it was trained on."""
        numbers = self.known.nonzero()[:, 0].tolist()
        return [chemical_symbols[z] for z in numbers if 0 < z < len(chemical_symbols)]

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file with configuration and card."""
        metadata = {
            "format": FORMAT,
            "config": json.dumps(config_to_dict(self.network.config)),
            "card": json.dumps(self.card),
        }
        state = {name: x.contiguous() for name, x in self.state_dict().items()}
        save_file(state, str(path), metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Potential":
        """Reads what `save` wrote, in evaluation mode.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not such a file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} was not written by this package: it has no potential in it")
        config = config_from_dict(json.loads(metadata["config"]))
        with torch.device("meta"):  # where no weights are drawn
            network = config.build()
        potential = cls(
            network, state["references"], float(state["scale"]), card=json.loads(metadata["card"])
        )
        potential.load_state_dict(state, assign=True)
        return potential.eval()


def config_to_dict(config: BaseConfig) -> dict[str, Any]:
    """What `config_from_dict` makes the configuration of."""
    version = next(name for name, kind in CONFIGS.items() if isinstance(config, kind))
    return {"version": version} | asdict(config)


def config_from_dict(settings: Mapping[str, Any]) -> BaseConfig:
    """The configuration of a dictionary with `version` and the fields of that release.

    Raises:
        ValueError: an unknown release.
    """
    settings = dict(settings)
    version = settings.pop("version", "v2")
    if version not in CONFIGS:
        raise ValueError(f"version must be v1 or v2, got {version!r}")
    if settings.get("frequencies") is not None:
        settings["frequencies"] = tuple(settings["frequencies"])
    return CONFIGS[version](**settings)


def shipped() -> dict[str, Path]:
    """The checkpoints that come with the package, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def load_potential(source: "str | Path | Potential | None" = None) -> Potential:
    """A potential from what users call it.

    Args:
        source: a shipped checkpoint's name (None: "hco"), a file that `Potential.save` or
            `attn-molecular fit` wrote, or a potential itself.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the file has no potential in it.
    """
    if isinstance(source, Potential):
        return source
    name = str(source or "hco")
    if name in shipped():
        return Potential.load(shipped()[name])
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(
            f"no potential {name!r}: neither a file nor one of {', '.join(shipped()) or 'none'}"
        )
    if path.suffix == ".ckpt":
        from core_attn.training import trained

        # weights are drawn before they are read; one thread at a time gives the state back
        with _DRAWING, torch.random.fork_rng(devices=[]):
            potential = getattr(trained(path).task, "model", None)
        if not isinstance(potential, Potential):
            raise ValueError(f"{path} holds no potential of this package")
        return potential.eval()
    return Potential.load(path)
