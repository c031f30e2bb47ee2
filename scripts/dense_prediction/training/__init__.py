"""Learn: the loop over steps, and all that a run keeps."""
