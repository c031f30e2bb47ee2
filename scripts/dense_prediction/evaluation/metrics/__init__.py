"""How good predictions are: one metric for each task, all of which add up over images and processes."""
