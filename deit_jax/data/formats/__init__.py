"""The forms in which labelled images lie on disk: folders, archives, prepared shards, TFDS."""
