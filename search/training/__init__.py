"""One training run: a network trained epoch by epoch, and its weights."""
