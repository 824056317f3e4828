"""The commands of `python -m deit_jax`, one file each."""
