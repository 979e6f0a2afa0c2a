"""Text without labels as a source of tasks."""
