"""Converters from official checkpoints to the models of this package."""
