pytest_plugins = ["core_attn.testing.plugin"]
