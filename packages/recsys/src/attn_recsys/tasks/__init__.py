"""What is trained: AutoInt and its baselines, with loss, metrics and pictures."""

from .click import ClickTask
from .models import AutoIntTask, BaselineTask

__all__ = ["ClickTask", "AutoIntTask", "BaselineTask"]
