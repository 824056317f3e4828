"""From a source to batches: sampling, repeated augmentation, cropping, damage, the loader."""
