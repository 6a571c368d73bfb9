"""`attn-vision analyze`: which heads matter, how far they look, what patterns they have."""
