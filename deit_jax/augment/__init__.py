"""On the device, inside jit: augmentation of uint8 batches, normalisation, mixing."""
