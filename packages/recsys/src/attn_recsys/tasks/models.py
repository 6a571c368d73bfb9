"""The click tasks: one for AutoInt, one for what it is compared with."""

from typing import Literal

from ..layout import Layout
from ..models import AutoIntConfig, BaselineConfig, Model
from ..optim.pair import Name as OptimizerName
from .click import ClickTask


class AutoIntTask(ClickTask):
    """AutoInt, or AutoInt+ with `deep_widths`.

    Args:
        config: the network's switches.
        optimizer, lr, table_lr, table_weight_decay, loss, l2_deep, start_at_base_rate, rare_rate,
            start, pretrained, tables: as in `ClickTask`.
    """

    def __init__(
        self,
        config: AutoIntConfig = AutoIntConfig(),  # noqa: B008 (frozen)
        optimizer: OptimizerName = "deferred_adam",
        lr: float = 1e-3,
        table_lr: float | None = None,
        table_weight_decay: float = 0.0,
        loss: Literal["bce", "official", "mse"] = "bce",
        l2_deep: float = 0.0,
        start_at_base_rate: bool = True,
        rare_rate: float | None = 0.0,
        start: str | None = None,
        pretrained: dict[str, str] | None = None,
        tables: Literal["copied", "torchrec"] = "copied",
    ):
        super().__init__(
            optimizer, lr, table_lr, table_weight_decay, loss, l2_deep,
            start_at_base_rate and config.init == "zero", rare_rate, start, pretrained, tables,
        )  # fmt: skip
        self.config = config

    def build(self, layout: Layout, *, sparse: bool) -> Model:
        """AutoInt."""
        return self.config.build(layout, sparse=sparse)


class BaselineTask(ClickTask):
    """One of the models AutoInt is compared with.

    Args:
        config: which, and its sizes.
        optimizer, lr, table_lr, table_weight_decay, loss, l2_deep, start_at_base_rate, rare_rate,
            start, pretrained, tables: as in `ClickTask`.
    """

    def __init__(
        self,
        config: BaselineConfig = BaselineConfig(),  # noqa: B008 (frozen)
        optimizer: OptimizerName = "deferred_adam",
        lr: float = 1e-3,
        table_lr: float | None = None,
        table_weight_decay: float = 0.0,
        loss: Literal["bce", "official", "mse"] = "bce",
        l2_deep: float = 0.0,
        start_at_base_rate: bool = True,
        rare_rate: float | None = 0.0,
        start: str | None = None,
        pretrained: dict[str, str] | None = None,
        tables: Literal["copied", "torchrec"] = "copied",
    ):
        super().__init__(
            optimizer, lr, table_lr, table_weight_decay, loss, l2_deep, start_at_base_rate,
            rare_rate, start, pretrained, tables,
        )  # fmt: skip
        self.config = config

    def build(self, layout: Layout, *, sparse: bool) -> Model:
        """The baseline."""
        return self.config.build(layout, sparse=sparse)
