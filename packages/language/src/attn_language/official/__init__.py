"""Official configurations and state dicts of each system, and back where nothing is lost."""
