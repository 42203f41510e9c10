"""Images: data sets as tensors, built in or one's own."""
