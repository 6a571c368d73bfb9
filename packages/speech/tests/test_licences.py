import re
from importlib.metadata import PackageNotFoundError, distribution, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed_needs(name, extras, seen):
    """The distributions that installing one with some extras pulls in, by name."""
    for need in map(Requirement, requires(name) or []):
        wanted = need.marker is None or any(
            need.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        other = canonicalize_name(need.name)
        if not wanted or (other, *sorted(need.extras)) in seen:
            continue
        try:
            seen[other, *sorted(need.extras)] = distribution(other)
        except PackageNotFoundError:
            continue  # for another platform
        installed_needs(other, need.extras, seen)
    return {key[0]: found for key, found in seen.items()}


def licence(found):
    """What the metadata say, or the beginning of the files that they name as licences."""
    meta = found.metadata
    named = [meta.get("License-Expression") or "", (meta.get("License") or "").split("\n")[0]]
    named += [c for c in meta.get_all("Classifier") or [] if "License" in c]
    if any(named):
        return " ".join(named)
    files = [file for file in found.files or [] if re.match("licen[cs]e|copying", file.name, re.I)]
    return " ".join(file.read_text(encoding="utf-8")[:300] for file in files)


def is_gpl(text):
    text = re.sub(r"LGPL\S*|GNU Lesser General Public License|GNU Library or Lesser[^:]*", "", text)
    return bool(re.search(r"GPL|General Public License", text))


def test_nothing_that_is_installed_is_under_the_gpl():
    needs = installed_needs("attn-speech", (), {})
    assert {"torchaudio", "soundfile", "gruut", "core-attn", "jsonargparse"} <= needs.keys()
    licences = {name: licence(found) for name, found in needs.items()}
    assert [name for name, text in licences.items() if is_gpl(text)] == []
    silent = {name for name, text in licences.items() if not text.strip()}
    assert silent <= {"cuda-toolkit"}  # NVIDIA's list of its own packages


def test_the_extra_that_is_under_the_gpl_is_found_out():
    pytest.importorskip("phonemizer", reason="needs phonemizer, extra espeak")
    needs = installed_needs("attn-speech", ("espeak",), {})
    assert is_gpl(licence(needs["phonemizer-fork"]))


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
