"""Puts the models under test where the tests can import them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["core_attn.testing.plugin"]
