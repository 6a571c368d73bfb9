"""A task whose network has the sizes of its data."""

from typing import Any, Protocol

from pytorch_lightning import LightningDataModule

from core_attn.training import Task


class Config(Protocol):
    """What builds a network."""

    def build(self) -> Any:
        """The network, freshly initialized."""
        ...


class SizedByData(Task):
    """Builds its network when it sees the data, and then starts from a file, where one is given."""

    def __init__(self):
        super().__init__()
        self._start: str | None = None

    def build_for(self, data: LightningDataModule) -> None:
        """Builds `self.model` for these data."""
        raise NotImplementedError

    def network(self, config: Config) -> Any:
        """The network of a configuration.

        Raises:
            ValueError: its sizes do not fit each other or the data.
        """
        try:
            return config.build()
        except ValueError as error:
            raise ValueError(f"model.config: {error}") from error

    def configure_model(self) -> None:
        """Builds the network for the data of the trainer, unless a checkpoint has done so."""
        if hasattr(self, "model"):
            return
        self.build_for(self.trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]
        if self._start is not None:
            super().start_from(self._start)

    def start_from(self, path: str) -> None:
        """Copies the weights of a file, as soon as there is a network."""
        if hasattr(self, "model"):
            super().start_from(path)
        else:
            self._start = path
