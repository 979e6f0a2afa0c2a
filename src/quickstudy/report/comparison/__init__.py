"""The report of a comparison: its page, Markdown, CSV and tables of figures, and which learner to take."""
