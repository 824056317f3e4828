"""Writing a data set as ArrayRecord shards, and reading it again to verify it."""
