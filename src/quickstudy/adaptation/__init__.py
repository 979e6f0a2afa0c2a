"""Step 4, adaptation: a meta-learned encoder and labels become a model of one task."""
