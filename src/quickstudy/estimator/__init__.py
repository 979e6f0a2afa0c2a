"""The classifier that follows the conventions of scikit-learn."""
