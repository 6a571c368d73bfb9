"""Attention over windows of a map."""
