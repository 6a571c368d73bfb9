"""Attention among the edges of each atom."""
