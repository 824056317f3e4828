"""From the bytes of one image to pixels of a wanted size, as Pillow and torchvision do it."""
