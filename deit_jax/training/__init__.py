"""Losses, optimiser, state, the one train step, the loop, checkpoints."""
