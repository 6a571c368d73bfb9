"""Softmax attention over index lists."""
