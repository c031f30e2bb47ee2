"""Repositories on the Hub: what goes into them, and how it gets there."""
