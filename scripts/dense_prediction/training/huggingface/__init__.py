"""The same training through HF's Trainer."""
