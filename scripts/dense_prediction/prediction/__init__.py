"""Look: what a trained model sees in pictures, and inside a backbone."""
