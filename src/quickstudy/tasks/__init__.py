"""Step 2, task abstraction: tasks become episodes with a support set and a query set."""
