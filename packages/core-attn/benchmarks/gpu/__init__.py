"""Everything to find out on the day a GPU is there; see `__main__`."""
