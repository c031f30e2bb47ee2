"""A look at the data before the first step, and what follows from it."""
