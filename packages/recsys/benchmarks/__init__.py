"""Measurements of the package: evidence for the paper's claims, and speed against the peers."""
