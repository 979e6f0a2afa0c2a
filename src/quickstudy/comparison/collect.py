"""Collect: the results of an evaluation, put together from the plan, the learners and the draws.

What differs from run to run, costs and the date, is in the results and not among the figures of draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.record import Draw
from quickstudy.evaluation.results import (
    EvaluatedTask,
    FirstDraw,
    LabelledText,
    Learner,
    Results,
    UsedProtocol,
    Versions,
)
from quickstudy.evaluation.summary import measured_costs, shots_tables
from quickstudy.evaluation.trial import PlannedTask, Trial, trials_hash
from quickstudy.tasks.split import Example, readable
from quickstudy.versions import versions


def results_of(
    protocol: Protocol,
    learners: Mapping[str, Learner],
    tasks: Sequence[PlannedTask],
    draws: Sequence[Draw],
    *,
    texts: bool,
) -> Results:
    """Return the results of an evaluation.

    Args:
        protocol: What was adapted to and scored.
        learners: By name.
        tasks: With their trials.
        draws: Of all learners on all tasks.
        texts: Whether texts of the tasks are in the results, for the report to show.
    """
    tables = shots_tables(draws, protocol.shots)
    largest = next((table.shots for table in reversed(tables) if table.learners), None)
    measured = {
        name: measured_costs([draw for draw in draws if draw.learner == name and draw.shots == largest])
        for name in learners
    }
    return Results(
        versions=Versions(**versions()),
        protocol=_used(protocol),
        learners={
            name: replace(learner if texts else _without_texts(learner), measured=measured[name])
            for name, learner in learners.items()
        },
        tasks={task.name: _evaluated(task, draws if texts else None) for task in tasks},
        tables=tables,
        draws=tuple(draws),
    )


def _used(protocol: Protocol) -> UsedProtocol:
    return protocol.used if protocol.name == "episodic" else replace(protocol.used, n_way=None, n_query=None)


def _without_texts(learner: Learner) -> Learner:
    overlap = learner.overlap and tuple(replace(overlap, examples=()) for overlap in learner.overlap)
    return replace(learner, overlap=overlap)


def _evaluated(planned: PlannedTask, draws: Sequence[Draw] | None) -> EvaluatedTask:
    """Return a task's record, with the texts that are needed to show these draws."""
    task, shown = planned.task, [draw for draw in draws or () if draw.task == planned.name]
    first_draws = [
        _first_draw(trials[0], [draw for draw in shown if draw.shots == shots])
        for shots, trials in planned.by_shots.items()
        if draws is not None
    ]
    return EvaluatedTask(
        domain=task.domain,
        kind=task.kind,
        label_names=task.label_names,
        metric=task.metric,
        n_test=len(planned.trials[0].tests) if planned.trials else 0,
        trials=trials_hash(planned.trials),
        first_draws=tuple(first_draws),
    )


def _first_draw(trial: Trial, draws: Sequence[Draw]) -> FirstDraw:
    """Return the support set, and what some learner got wrong; all of train is no support set to look at."""
    rows = sorted({mistake.row for draw in draws for mistake in draw.mistakes or ()})
    support = trial.support if trial.shots != "all" else ()
    return FirstDraw(
        trial.shots,
        tuple(_labelled(example, trial.label_names) for example in support),
        {row: _labelled(trial.tests[row], trial.label_names) for row in rows},
    )


def _labelled(example: Example, label_names: Sequence[str]) -> LabelledText:
    return LabelledText(**readable(example, label_names))
