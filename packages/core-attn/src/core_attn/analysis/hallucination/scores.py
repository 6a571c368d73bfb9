"""Captions and answers beside what is in the picture: CHAIR and POPE."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@cache
def coco_words() -> Mapping[str, str]:
    """The 80 objects of COCO and other words for them: word -> object.

    Example:
        >>> coco_words()["puppy"]
        'dog'
    """
    text = files(__name__.rpartition(".")[0]).joinpath("coco.json").read_text()
    return {word: name for name, words in json.loads(text).items() for word in (name, *words)}


def mentioned(caption: str, words: Mapping[str, str] | None = None) -> list[str]:
    """The objects that a caption names, in order, each as often as it is named.

    Words are compared in lower case and in the singular; the longest match counts, so that "hot
    dog" is no dog.

    Args:
        caption: any text.
        words: word -> object; COCO's by default.

    Example:
        >>> mentioned("Two puppies eat a hot dog on a dining table.")
        ['dog', 'hot dog', 'dining table']
    """
    words = coco_words() if words is None else words
    tokens = [_singular(token) for token in re.findall(r"[a-z]+", caption.lower())]
    longest = max((word.count(" ") + 1 for word in words), default=1)
    found, place = [], 0
    while place < len(tokens):
        for length in range(min(longest, len(tokens) - place), 0, -1):
            name = words.get(" ".join(tokens[place : place + length]))
            if name is not None:
                found.append(name)
                break
        else:
            length = 1
        place += length
    return found


_IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "knives": "knife",
    "mice": "mouse", "sheep": "sheep", "skis": "skis", "scissors": "scissors", "buses": "bus",
    "geese": "goose", "calves": "calf", "glasses": "glass", "wolves": "wolf",
}  # fmt: skip


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4 and word not in ("cookies", "movies", "selfies"):
        return word[:-3] + "y"
    if re.search(r"(ches|shes|sses|xes|zes|oes)$", word):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


@dataclass(frozen=True)
class Chair:
    """Hallucinated objects in captions.

    Attributes:
        per_caption: share of captions with one (CHAIR_S).
        per_mention: share of mentions that are (CHAIR_I); 0 without mentions.
        mentions: how many there were.
        words: mean length of a caption.
        hallucinated: for each caption, the objects that are not there.
    """

    per_caption: float
    per_mention: float
    mentions: int
    words: float
    hallucinated: Sequence[Sequence[str]]


def chair(
    captions: Sequence[str],
    present: Sequence[Collection[str]],
    words: Mapping[str, str] | None = None,
) -> Chair:
    """CHAIR: objects named in captions that are not in the picture.

    Args:
        captions: one per picture.
        present: the objects in each picture, from annotations and reference captions.
        words: word -> object; COCO's by default.

    Raises:
        TypeError: the objects of a picture are a text.
        ValueError: no captions, or another number of pictures.

    Source: Rohrbach et al., 2018, "Object Hallucination in Image Captioning", arXiv 1809.02156.

    Example:
        >>> chair(["a dog and a cat", "a bird"], [{"dog"}, {"bird"}]).per_caption
        0.5
    """
    if not captions or len(captions) != len(present):
        raise ValueError(f"{len(captions)} captions for {len(present)} pictures")
    for number, objects in enumerate(present):
        if isinstance(objects, str):  # in which every part of a word would be found
            raise TypeError(f"the objects of picture {number} must be a set of words: {objects!r}")
    named = [mentioned(caption, words) for caption in captions]
    wrong = [[x for x in of if x not in there] for of, there in zip(named, present, strict=True)]
    total = sum(map(len, named))
    return Chair(
        sum(map(bool, wrong)) / len(captions),
        sum(map(len, wrong)) / max(total, 1),
        total,
        sum(len(caption.split()) for caption in captions) / len(captions),
        wrong,
    )


@dataclass(frozen=True)
class Pope:
    """Answers to "Is there a … in the image?".

    Attributes:
        accuracy: share of right answers; one that is neither yes nor no counts as no.
        precision: of "yes".
        recall: of "yes".
        f1: their harmonic mean.
        yes: share of "yes".
        unclear: answers that are neither.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes: float
    unclear: int


def pope(answers: Sequence[str], truth: Sequence[bool]) -> Pope:
    """POPE: how often a model says that an object is there.

    Args:
        answers: texts; the first "yes", "no" or "not" in them counts.
        truth: whether the object is there.

    Raises:
        ValueError: no answers, or another number of truths.

    Source: Li et al., 2023, "Evaluating Object Hallucination in Large Vision-Language Models",
    arXiv 2305.10355.

    Example:
        >>> pope(["Yes, there is.", "No.", "yes"], [True, False, False]).f1
        0.6666666666666666
    """
    if not answers or len(answers) != len(truth):
        raise ValueError(f"{len(answers)} answers for {len(truth)} questions")
    found = [re.search(r"\b(yes|no|not)\b", answer.lower()) for answer in answers]
    said = [match is not None and match.group() == "yes" for match in found]
    hits = sum(a and b for a, b in zip(said, truth, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(truth) if any(truth) else 0.0
    both = precision + recall
    return Pope(
        sum(a == b for a, b in zip(said, truth, strict=True)) / len(said),
        precision,
        recall,
        2 * precision * recall / both if both else 0.0,
        sum(said) / len(said),
        sum(match is None for match in found),
    )
