"""How far a model's output moved when something was taken out of it, image by image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

CLASSIFIER = ("accuracy_drop", "prob_drop", "loss_increase", "js", "kl")
EVERY = (*CLASSIFIER, "cls_cosine_distance", "output_change")


@dataclass(frozen=True)
class Outcome:
    """What a model said of some samples.

    Attributes:
        output: logits, or any dense output of a model without classes.
        feature: what the classifier reads, as the normalized class token; None where there is none.
    """

    output: Float[Tensor, " samples *rest"]
    feature: Float[Tensor, "samples dim"] | None = None

    @staticmethod
    def joined(parts: "list[Outcome]") -> "Outcome":
        """Several batches as one."""
        features = [part.feature for part in parts if part.feature is not None]
        feature = torch.cat(features) if len(features) == len(parts) else None
        return Outcome(torch.cat([part.output for part in parts]), feature)


def applicable(outcome: Outcome, labels: Tensor | None) -> tuple[str, ...]:
    """The metrics that such an outcome allows.

    Example:
        >>> applicable(Outcome(torch.zeros(1, 3)), labels=None)
        ('output_change',)
    """
    names = CLASSIFIER if labels is not None and outcome.output.dim() == 2 else ()
    if outcome.feature is not None:
        names = (*names, "cls_cosine_distance")
    return (*names, "output_change")


def measure(
    name: str, base: Outcome, changed: Outcome, labels: Int[Tensor, " samples"] | None = None
) -> Float[Tensor, " samples"]:
    """One importance metric per sample; larger means that more was lost.

    With p and q the probabilities before and after, and y the label: "accuracy_drop"
    1[p is right] - 1[q is right]; "prob_drop" p_y - q_y; "loss_increase" log p_y - log q_y; "js"
    the Jensen-Shannon divergence and "kl" KL(p || q), both in nats; "cls_cosine_distance" 1 - the
    cosine of the features; "output_change" the mean square of the change of the output.

    Args:
        name: of the metric.
        base: what the whole model said.
        changed: what the changed one said.
        labels: the classes; needed by the first three.

    Raises:
        ValueError: no metric has that name, or it needs labels or features that are not given.

    Source: the metrics are this project's choice; Li et al., 2023, "How Does Attention Work in
    Vision Transformers? A Visual Analytics Attempt", arXiv 2303.13731, names pruning-based
    metrics without defining them.

    Example:
        >>> base, changed = (Outcome(torch.tensor([[x, 0.0]])) for x in (2.0, -1.0))
        >>> measure("accuracy_drop", base, changed, torch.tensor([0]))
        tensor([1.])
    """
    if name == "output_change":
        change = (changed.output - base.output).float().square()
        return change.reshape(len(change), -1).mean(1)
    if name == "cls_cosine_distance":
        if base.feature is None or changed.feature is None:
            raise ValueError("cls_cosine_distance needs features, and the model gave none")
        return 1 - F.cosine_similarity(base.feature.float(), changed.feature.float(), dim=-1)
    if name not in CLASSIFIER:
        raise ValueError(f"no metric is named {name!r}; metrics: {', '.join(EVERY)}")
    log_p, log_q = (x.output.float().log_softmax(-1) for x in (base, changed))
    if name == "kl":
        return _kl(log_p, log_q)
    if name == "js":
        middle = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
        return (_kl(log_p, middle) + _kl(log_q, middle)) / 2
    if labels is None:
        raise ValueError(f"{name} needs labels")
    if name == "accuracy_drop":
        return (log_p.argmax(-1) == labels).float() - (log_q.argmax(-1) == labels).float()
    of_label = [x.gather(-1, labels[:, None])[:, 0] for x in (log_p, log_q)]
    if name == "prob_drop":
        return of_label[0].exp() - of_label[1].exp()
    return of_label[0] - of_label[1]


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def bootstrap(
    values: Float[Tensor, " samples *rest"], *, resamples: int = 1000, seed: int = 0
) -> tuple[Float[Tensor, "*rest"], Float[Tensor, "*rest"]]:
    """The 95 % interval of the mean over samples, by resampling them.

    Args:
        values: one number per sample and cell.
        resamples: drawn data sets.
        seed: of the draws, which are the same for every cell.

    Raises:
        ValueError: no samples, or no draws.

    Example:
        >>> low, high = bootstrap(torch.arange(100.0))
        >>> bool(low < 49.5 < high)
        True
    """
    count = len(values)
    if count < 1 or resamples < 1:
        raise ValueError(f"an interval of {count} samples by {resamples} draws: both must be >= 1")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    weights = torch.zeros(resamples, count).scatter_add_(1, drawn, torch.ones(1).expand_as(drawn))
    means = (weights / count) @ values.float().reshape(count, -1)
    low, high = means.quantile(torch.tensor([0.025, 0.975]), dim=0).unbind(0)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])
