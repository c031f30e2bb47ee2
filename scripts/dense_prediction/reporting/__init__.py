"""Tell: what a run is going to learn from and with, before its first step, and at last what came of it."""
