"""A domain package as small as one can be."""
