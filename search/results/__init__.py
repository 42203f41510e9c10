"""What is done with the trials of a study that has ended."""
