"""Exact metrics, for each head and both together."""
