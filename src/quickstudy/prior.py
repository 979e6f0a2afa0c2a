"""Prior: the meta-trained encoder that comes with the package.

It is a compact run (`Run.compact`) of `recipes/prior.toml`: the change of all-MiniLM-L6-v2 that meta-training on many
data sets gave, cut to a low rank. Its card, `priors/minilm/README.md`, says on which tasks it was trained, under which
licences, and what was measured.
"""

from functools import cache

from quickstudy.methods.base import MetaLearner
from quickstudy.runs import Run
from quickstudy.storage.layout import PRIOR_FOLDER


@cache
def load_prior() -> MetaLearner:
    """Return the learner, which is loaded once per process and shared: nobody may change its parameters.

    Raises:
        QuickstudyError: Its untouched encoder cannot be loaded, or is another one.
    """
    return Run.open(PRIOR_FOLDER).learner()
