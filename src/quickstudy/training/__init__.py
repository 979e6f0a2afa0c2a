"""Step 3, meta-training: the outer loop over episodes."""
