"""The checkpoints of a run: atomic, verified, and never deleted because they are damaged."""
