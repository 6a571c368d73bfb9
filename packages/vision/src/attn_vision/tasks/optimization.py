"""What every task on images does with its optimizer."""

from fnmatch import fnmatchcase

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; vectors and what the model names in `no_weight_decay` do not.

    Args:
        model: its `no_weight_decay`, if it has one, holds names or shell patterns of them.
        weight_decay: of matrices.

    Example:
        >>> groups = parameter_groups(nn.Linear(2, 3), 0.1)
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(1, 0.1), (1, 0.0)]
    """
    patterns = getattr(model, "no_weight_decay", frozenset())
    plain, decayed = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        named = any(fnmatchcase(name, pattern) for pattern in patterns)
        (plain if parameter.dim() < 2 or named else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
