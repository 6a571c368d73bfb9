"""Small language models on core-attn."""
