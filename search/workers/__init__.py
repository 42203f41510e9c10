"""Training jobs, and the pools of workers that do them, wherever they run."""
