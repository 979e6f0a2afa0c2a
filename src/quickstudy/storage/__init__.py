"""Storage: how files and folders are written, what a run folder holds, and how damage is noticed."""
