"""Small convolutional networks: as values, in closed form, and as PyTorch modules."""
