"""Measurements of core-attn beside its peers: `python -m benchmarks.<name>` in this folder."""
