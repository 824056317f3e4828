"""The forms in which labelled images lie on disk: folders, archives, lists, prepared shards, TFDS."""
