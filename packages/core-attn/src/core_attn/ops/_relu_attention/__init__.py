"""Attention with rectified scores."""
