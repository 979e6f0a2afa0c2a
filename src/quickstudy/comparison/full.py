"""Full: the protocol that fine-tunes a learner's whole encoder on all of train, once per seed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from quickstudy.adaptation.full import finetune_task
from quickstudy.cost import measure
from quickstudy.evaluation.evaluate import footprint, scored_draw
from quickstudy.evaluation.record import Costs, Draw
from quickstudy.evaluation.trial import Trial
from quickstudy.full_settings import FullSettings
from quickstudy.methods.base import MetaLearner
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Task


def finetune_and_score(name: str, learner: MetaLearner, task: Task, trials: Sequence[Trial]) -> Iterator[Draw]:
    """Yield a draw per trial; its number is the seed.

    Args:
        name: Of the learner, in tables.
        learner: Where the encoder is taken from; it is not changed.
        task: The task, without its rows.
        trials: All of train, and what is scored.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as the Trainer chooses
    for trial in trials:
        trained_on = replace(task, splits={"train": ListSplit(trial.support)})
        with measure(device) as adapting:
            model = finetune_task(learner.encoder, trained_on, FullSettings(seed=trial.draw))
        with measure(device) as predicting:
            scores = model.logits(trial.tests)
        costs = Costs(
            seconds_adapt=adapting.seconds,
            seconds_predict=predicting.seconds,
            seconds_predict_1000=1000 * predicting.seconds / len(trial.tests),
            adapt_peak_mib=adapting.peak_mib,
            predict_peak_mib=predicting.peak_mib,
        )
        size = footprint(learner, model)
        yield scored_draw(name, task, trial, scores, size, costs, with_mistakes=trial.draw == 0)
