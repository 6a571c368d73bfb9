"""What is trained: AutoInt and its baselines, with loss, metrics and pictures."""

from .click import AutoIntTask, BaselineTask, ClickTask

__all__ = ["ClickTask", "AutoIntTask", "BaselineTask"]
