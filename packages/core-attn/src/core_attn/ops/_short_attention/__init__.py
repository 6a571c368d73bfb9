"""Softmax attention for many small problems."""
