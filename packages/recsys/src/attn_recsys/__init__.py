"""Click models on core-attn."""
