"""The example of any model in docs/look_inside.md."""

from pathlib import Path

from core_attn.testing import page_code

PAGE = Path(__file__).parents[4] / "docs/look_inside.md"


def test_the_example_runs():
    exec(page_code(PAGE, "Any model"), {})
