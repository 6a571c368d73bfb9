import sys

import pytest

pytest_plugins = ["core_attn.testing.plugin"]


@pytest.hookimpl(trylast=True)
def pytest_configure():
    """Has core_attn, which its plugin has imported unchecked, imported anew."""
    ours = [name for name in sys.modules if name.partition(".")[0] == "core_attn"]
    for name in ours:
        if name != "core_attn.testing.plugin":
            del sys.modules[name]
