"""Models: encoders, the heads on top of them, and which parameters adapt."""
