"""Step 5, comparison: learners × tasks × shots in cells that are computed once, here or on many machines."""
