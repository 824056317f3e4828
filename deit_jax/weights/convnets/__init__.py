"""What other projects call the tensors of the convnets: a table of names for each family.

Without JAX, as files are read without it.
"""
