"""Speed, side by side with PyTorch on the same machine; nothing here is needed to train."""
