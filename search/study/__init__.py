"""What is stored of a search, and whose it is."""
