"""Vision transformers on core-attn."""
