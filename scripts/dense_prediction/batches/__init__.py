"""What a step sees: samples that are transformed, shuffled and batched."""
