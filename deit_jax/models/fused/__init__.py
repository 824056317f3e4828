"""What a transformer's block does between its products, as kernels of our own for NVIDIA GPUs."""
