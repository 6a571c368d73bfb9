"""The mean of normed Pluecker coordinates."""
