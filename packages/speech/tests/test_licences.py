import re
from importlib.metadata import PackageNotFoundError, distribution, requires

import pytest


def installed_needs(name, seen):
    """The distributions that installing one pulls in."""
    for need in requires(name) or []:
        if "extra ==" in need and not (name == "core-attn" and re.search("train|report", need)):
            continue
        other = re.match(r"[\w.-]+", need)[0].lower().replace("_", "-")
        if other not in seen:
            try:
                seen[other] = distribution(other)
            except PackageNotFoundError:
                continue  # for another platform
            installed_needs(other, seen)
    return seen


def licence(found):
    meta = found.metadata
    named = [meta.get("License-Expression") or "", (meta.get("License") or "").split("\n")[0]]
    return " ".join([*named, *(c for c in meta.get_all("Classifier") or [] if "License" in c)])


def is_gpl(text):
    text = re.sub(r"LGPL\S*|GNU Lesser General Public License|GNU Library or Lesser[^:]*", "", text)
    return bool(re.search(r"GPL|General Public License", text))


def test_nothing_that_is_installed_is_under_the_gpl():
    needs = installed_needs("attn-speech", {})
    assert {"torchaudio", "soundfile", "gruut", "core-attn"} <= needs.keys()
    assert [name for name, found in needs.items() if is_gpl(licence(found))] == []


@pytest.mark.parametrize(
    ("text", "gpl"),
    [
        ("GPL-3.0-only", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("LGPL-2.1", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v2 (LGPLv2)", False),
        ("MIT", False),
    ],
)
def test_the_gpl_is_told_from_the_lgpl(text, gpl):
    assert is_gpl(text) == gpl
