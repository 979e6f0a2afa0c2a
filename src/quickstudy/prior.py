"""Prior: the learner that ships with the package; a classifier starts from it when no run is given."""

from functools import cache

from quickstudy.build import build_learner
from quickstudy.config import check_recipe
from quickstudy.methods.base import MetaLearner


@cache
def load_prior() -> MetaLearner:
    """Return the learner, which is loaded once per process and shared: nobody may change its parameters.

    Raises:
        QuickstudyError: Its encoder cannot be loaded.
    """
    method = {"name": "protonet", "names": "gated"}
    return build_learner(check_recipe({"method": method, "tasks": {"train": ["samples:meta-train"]}}))
