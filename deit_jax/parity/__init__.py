"""Proof, layer by layer, that PyTorch and this implementation compute the same; needs PyTorch."""
