"""RWKV-4's weighted mean with a decay."""
