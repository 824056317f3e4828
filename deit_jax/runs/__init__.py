"""A run on disk: its directory, record, log and checkpoints."""
