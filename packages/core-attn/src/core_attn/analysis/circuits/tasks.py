"""Prompts on which a circuit is needed, and their counterparts on which it is not.

The construction of the tasks and the known circuits are those of the papers; the sentences, names
and nouns in `tasks.json` are this project's own.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True)
class Prompts:
    """A task: texts, and the word that continues each positive one.

    Attributes:
        positive: texts on which a model can do the task.
        negative: as many counterparts.
        answers: the right continuation of each positive text.
        distractors: the wrong one that is at hand.
    """

    positive: Sequence[str]
    negative: Sequence[str]
    answers: Sequence[str]
    distractors: Sequence[str]


@cache
def _data() -> dict:
    return json.loads(files(__name__.rpartition(".")[0]).joinpath("tasks.json").read_text())


GROUND_TRUTH = ("ioi", "greater_than", "docstring")


def truth(task: str) -> Bool[Tensor, "layers heads"]:
    """The published circuit of a task: which heads of its model belong to it.

    Args:
        task: "ioi" and "greater_than" in GPT-2 small (12 x 12), "docstring" in the four-layer
            attention-only model (4 x 8).

    Raises:
        ValueError: no such task.

    Source: Wang et al., 2022, arXiv 2211.00593; Hanna et al., 2023, arXiv 2305.00586; Heimersheim
    & Janiak, 2023; as collected by O'Neill & Bui, 2024, arXiv 2405.12522.

    Example:
        >>> int(truth("ioi").sum())
        26
    """
    if task not in GROUND_TRUTH:
        raise ValueError(f"no circuit is known for {task!r}; tasks: {', '.join(GROUND_TRUTH)}")
    entry = _data()["circuits"][task]
    mask = torch.zeros(entry["layers"], entry["heads"], dtype=torch.bool)
    for layer, head in (pair for group in entry["groups"].values() for pair in group):
        mask[layer, head] = True
    return mask


def ioi(
    count: int = 250, *, seed: int = 0, single: Callable[[str], bool] = lambda word: True
) -> Prompts:
    """Indirect object identification: "When Mary and John …, John gave … to" -> " Mary".

    Templates come in both orders of the first two names. In the negatives the first mention of the
    repeated name is a third name, so that nothing repeats.

    Args:
        count: of positive and of negative texts.
        seed: of names, places and objects.
        single: whether a word (with its leading space) is a single token; names that are not are
            left out.

    Raises:
        ValueError: fewer than three names are single tokens, or a count below 1.

    Example:
        >>> found = ioi(4)
        >>> found.positive[0].count(found.answers[0].strip())
        1
    """
    _check_count(count)
    data, draw = _data()["ioi"], random.Random(seed)
    names = [name for name in data["names"] if single(f" {name}")]
    if len(names) < 3:
        raise ValueError(f"{len(names)} names are single tokens; at least 3 are needed")
    texts: list[tuple[str, str, str, str]] = []
    for number in range(count):
        template = data["templates"][number // 2 % len(data["templates"])]
        recipient, giver, other = draw.sample(names, 3)
        words = {"place": draw.choice(data["places"]), "object": draw.choice(data["objects"])}
        first, second = (giver, recipient) if number % 2 else (recipient, giver)
        ours = template.format(first=first, second=second, giver=giver, **words)
        first, second = (other, recipient) if number % 2 else (recipient, other)
        theirs = template.format(first=first, second=second, giver=giver, **words)
        texts.append((ours, theirs, f" {recipient}", f" {giver}"))
    return Prompts(*zip(*texts, strict=True))


def greater_than(count: int = 250, *, seed: int = 0) -> Prompts:
    """ "The war lasted from the year 1732 to the year 17" -> a number above 32.

    The years' last two digits run evenly from 02 to 98; in the negatives they are 01. The answer
    named is the next number, the distractor the one before.

    Args:
        count: of positive and of negative texts.
        seed: of nouns and centuries.

    Raises:
        ValueError: a count below 1.

    Example:
        >>> greater_than(2).positive[0].startswith("The ")
        True
    """
    _check_count(count)
    nouns, draw = _data()["greater_than"]["nouns"], random.Random(seed)
    texts = []
    for number in range(count):
        year = 2 + round(number * 96 / max(count - 1, 1))
        noun, century = draw.choice(nouns), draw.randrange(12, 20)
        sentence = "The {noun} lasted from the year {century}{year:02d} to the year {century}"
        ours, theirs = (
            sentence.format(noun=noun, century=century, year=value) for value in (year, 1)
        )
        texts.append((ours, theirs, f"{year + 1:02d}", f"{year - 1:02d}"))
    return Prompts(*zip(*texts, strict=True))


def docstring(count: int = 250, *, seed: int = 0) -> Prompts:
    """A function's arguments described in their order: which one is described next?

    The definition has two arguments before the three that the docstring describes, and one after;
    the docstring breaks off before the third. In the negatives the described arguments are not
    those of the definition.

    Args:
        count: of positive and of negative texts.
        seed: of the words.

    Raises:
        ValueError: a count below 1.

    Example:
        >>> found = docstring(1)
        >>> found.answers[0].strip() in found.positive[0]
        True
    """
    _check_count(count)
    words, draw = _data()["docstring"]["words"], random.Random(seed)
    texts = []
    for _ in range(count):
        name, *chosen = draw.sample(words, 22)
        arguments, others, notes = chosen[:6], chosen[6:9], chosen[9:]

        def text(described: Sequence[str], name=name, arguments=arguments, notes=notes) -> str:
            lines = [
                f"def {name}(self, {', '.join(arguments)}):",
                f'    """{notes[0]} {notes[1]} {notes[2]}',
                "",
                *(
                    f"    :param {argument}: {notes[3 + 2 * i]} {notes[4 + 2 * i]}"
                    for i, argument in enumerate(described[:2])
                ),
                "    :param",
            ]
            return "\n".join(lines)

        ours, theirs = text(arguments[2:5]), text(others)
        texts.append((ours, theirs, f" {arguments[4]}", f" {arguments[5]}"))
    return Prompts(*zip(*texts, strict=True))


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
