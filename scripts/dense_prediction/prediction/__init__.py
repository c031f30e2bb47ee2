"""Look: what a trained model sees in pictures."""
