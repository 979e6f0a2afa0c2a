"""Leakage: whether texts that are scored were seen in meta-training."""
