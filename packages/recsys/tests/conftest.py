import os
from pathlib import Path

import pytest

pytest_plugins = ["core_attn.testing.plugin"]


@pytest.fixture
def shared():
    """The folder of shared data sets; tests that need it are skipped where it is absent."""
    root = Path(__file__).resolve().parents[3].parent
    folder = Path(os.environ.get("ATTN_DATA", root / "shared" / "data")) / "recsys"
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder}; set ATTN_DATA")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_RECSYS_CACHE", str(tmp_path / "cache"))
