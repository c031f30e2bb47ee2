"""Measure: what predictions are worth, and pictures of them."""
