"""Export: adapted models in formats of other runtimes."""
