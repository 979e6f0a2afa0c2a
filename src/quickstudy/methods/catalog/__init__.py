"""Catalog: every method by its name, with its settings, its equation, an example and its reference."""

from quickstudy.methods.catalog.table import METHODS, check_method, check_setting, make, settings_of

__all__ = ["METHODS", "check_method", "check_setting", "make", "settings_of"]
