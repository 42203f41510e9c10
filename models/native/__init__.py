"""The compiled training step for a CPU, and its binding."""
