"""Models of the package and their named variants."""
