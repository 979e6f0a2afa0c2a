"""Version: the one place that says which version of quickstudy this is; the build reads it too."""

__version__ = "0.1.0"
