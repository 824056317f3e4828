"""NNX modules and the table of their names."""
