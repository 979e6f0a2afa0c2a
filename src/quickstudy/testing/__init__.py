"""Contracts that all parts of quickstudy keep, to check your code with: `check_meta_learner` and others."""

from quickstudy.testing.contracts import check_inner_optimizer, check_meta_learner, check_sampler, check_task
from quickstudy.testing.tiny import score_task, tiny_encoder, tiny_support, word_task

__all__ = [
    "check_inner_optimizer",
    "check_meta_learner",
    "check_sampler",
    "check_task",
    "score_task",
    "tiny_encoder",
    "tiny_support",
    "word_task",
]
