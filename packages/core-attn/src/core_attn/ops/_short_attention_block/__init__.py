"""A layer of short attention as one operator."""
