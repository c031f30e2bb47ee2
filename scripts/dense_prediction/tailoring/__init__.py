"""Settings that follow from the data: a recipe for pictures that nobody has seen before."""
