"""What was asked: the schema of recipes, and how they are read."""
