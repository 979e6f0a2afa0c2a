"""quickstudy: meta-pretrain a language encoder so that it learns new text classes from a handful of labels.

    >>> import quickstudy
    >>> sorted(quickstudy.__all__)[:3]
    ['AdaptedModel', 'Encoder', 'Episode']

Names are resolved on first use, so that `import quickstudy` stays fast and imports no torch. quickstudy sends nothing
to anyone, and asks the libraries below not to either: they read these variables when they are first imported.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from quickstudy._version import __version__ as __version__
from quickstudy.importing import quick_imports

for _name, _value in (
    ("HF_HUB_DISABLE_TELEMETRY", "1"),  # huggingface_hub, transformers and datasets: what they tell with a download
    ("HF_UPDATE_DOWNLOAD_COUNTS", "0"),  # datasets: a request that counts downloads
    ("GRADIO_ANALYTICS_ENABLED", "False"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    os.environ.setdefault(_name, _value)

_HOME = {
    "AdaptedModel": "quickstudy.models.adapted",
    "Encoder": "quickstudy.models.encoder",
    "Episode": "quickstudy.tasks.episode",
    "EpisodeSampler": "quickstudy.tasks.sampler",
    "EpisodeSpec": "quickstudy.tasks.episode",
    "Example": "quickstudy.tasks.split",
    "FewShotClassifier": "quickstudy.estimator.classifier",
    "QuickstudyError": "quickstudy.errors",
    "Limits": "quickstudy.report.comparison.recommend",
    "Protocol": "quickstudy.evaluation.protocol",
    "Task": "quickstudy.tasks.task",
    "adapt": "quickstudy.api",
    "compare": "quickstudy.comparison.compare",
    "evaluate": "quickstudy.api",
    "finetune": "quickstudy.api",
    "load_model": "quickstudy.api",
    "load_tasks": "quickstudy.api",
    "pretrain": "quickstudy.api",
    "recommend": "quickstudy.report.comparison.recommend",
}

__all__ = [
    "AdaptedModel",
    "Encoder",
    "Episode",
    "EpisodeSampler",
    "EpisodeSpec",
    "Example",
    "FewShotClassifier",
    "Limits",
    "Protocol",
    "QuickstudyError",
    "Task",
    "adapt",
    "compare",
    "evaluate",
    "finetune",
    "load_model",
    "load_tasks",
    "pretrain",
    "recommend",
]

if TYPE_CHECKING:
    from quickstudy.api import adapt, evaluate, finetune, load_model, load_tasks, pretrain
    from quickstudy.comparison.compare import compare
    from quickstudy.errors import QuickstudyError
    from quickstudy.estimator.classifier import FewShotClassifier
    from quickstudy.evaluation.protocol import Protocol
    from quickstudy.models.adapted import AdaptedModel
    from quickstudy.models.encoder import Encoder
    from quickstudy.report.comparison.recommend import Limits, recommend
    from quickstudy.tasks.episode import Episode, EpisodeSpec
    from quickstudy.tasks.sampler import EpisodeSampler
    from quickstudy.tasks.split import Example
    from quickstudy.tasks.task import Task


def __getattr__(name: str) -> Any:
    if name in _HOME:
        if _HOME[name] in sys.modules:  # another thread may be importing it: then this waits until it is whole
            return getattr(import_module(_HOME[name]), name)
        with quick_imports():
            return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'quickstudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
