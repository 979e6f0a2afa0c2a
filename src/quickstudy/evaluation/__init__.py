"""Step 5, evaluation: learners on held-out tasks, with identical draws, intervals and baselines."""
