"""The example of this package in docs/look_inside.md."""

from pathlib import Path

from core_attn.testing import page_code

PAGE = Path(__file__).parents[3] / "docs/look_inside.md"


def test_the_example_runs():
    exec(page_code(PAGE, "Speech"), {})
