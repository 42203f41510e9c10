"""What can be trained: recipes, and the ranges that they are drawn from."""
