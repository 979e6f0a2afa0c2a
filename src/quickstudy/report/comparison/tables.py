"""Tables of a comparison beside those that runs have too: costs, labels, calibration and provenance."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from quickstudy.evaluation.results import Learner, Training
from quickstudy.report.comparison.figures import Diagram, LabelMean
from quickstudy.report.html import public
from quickstudy.report.number import NONE, count, digits, percent, seconds, shots_text
from quickstudy.report.table import Cell, Table
from quickstudy.report.view import View


def costs_table(view: View) -> Table:
    """Return what each learner costs beside what it scores at the largest number of shots."""
    means = view.means(view.largest)
    costs = {name: _costs(view.results.learners[name]) for name in view.learners}
    scores = {name: means[name].mean if name in means else None for name in view.learners}
    lines = [
        [Cell(name), Cell(percent(scores[name]), scores[name]), *of_learner.values()]
        for name, of_learner in costs.items()
    ]
    titles = next(iter(costs.values()))
    return Table("Costs", ("learner", f"mean at {shots_text(view.largest)}, %", *titles), lines)


def labels_table(caption: str, labels: Sequence[str], scores: Mapping[str, Sequence[LabelMean]]) -> Table:
    """Return precision, recall and F1 of each label (lines) and learner (columns); a column is sorted by F1."""

    def cell(mean: LabelMean) -> Cell:
        return Cell(" / ".join(map(percent, (mean.precision, mean.recall, mean.f1))), mean.f1)

    lines = [[Cell(label), *(cell(of_learner[i]) for of_learner in scores.values())] for i, label in enumerate(labels)]
    return Table(caption, ("label", *scores), lines)


def calibration_table(diagrams: Sequence[Diagram]) -> Table:
    """Return how far the probabilities of each learner can be trusted."""
    lines = [
        [Cell(each.learner)]
        + [Cell(digits(value), value) for value in (each.ece, each.mean_ece, each.log_loss)]
        + [Cell(count(each.n), each.n)]
        for each in diagrams
    ]
    head = ("learner", "ECE, pooled", "ECE, mean of draws", "log loss, mean of draws", "predictions")
    return Table("Calibration", head, lines)


def provenance_tables(view: View) -> list[Table]:
    """Return what the comparison was made of and with: versions and protocol, tasks, learners."""
    return [_settings_table(view), _tasks_made_of(view), _learners_made_of(view)]


def _settings_table(view: View) -> Table:
    about = asdict(view.results.versions) | asdict(view.results.protocol)
    return Table("Versions and protocol", ("what", "value"), [[Cell(key), Cell(_plain(about[key]))] for key in about])


def _tasks_made_of(view: View) -> Table:
    lines = [
        [Cell(name), Cell(task.domain), Cell(task.kind), Cell(task.metric)]
        + [Cell(count(n), n) for n in (task.n_test, len(task.label_names))]
        + [Cell(task.trials)]
        for name, task in view.results.tasks.items()
    ]
    head = ("task", "domain", "kind", "own metric", "rows scored", "labels", "trials (SHA-256)")
    return Table("Tasks", head, lines)


def _learners_made_of(view: View) -> Table:
    lines = []
    for name in view.learners:
        learner = view.results.learners[name]
        settings = public(json.dumps(learner.settings, ensure_ascii=False))
        trained = "yes" if learner.trained else "no"
        cells = (name, learner.method, public(learner.encoder), trained, settings, learner.fingerprint)
        lines.append([Cell(text) for text in cells])
    return Table("Learners", ("learner", "method", "encoder", "meta-trained", "settings", "fingerprint"), lines)


def _costs(learner: Learner) -> dict[str, Cell]:
    """Return the costs of a learner by their titles."""
    measured, costs = learner.measured, learner.measured.costs
    training = learner.training or Training(None, None, None, None)
    columns: dict[str, tuple[float | None, Callable[[float | None], str]]] = {
        "seconds to adapt": (costs.seconds_adapt, seconds),
        "peak MiB, adapting": (costs.adapt_peak_mib, count),
        "seconds to predict 1,000": (costs.seconds_predict_1000, seconds),
        "peak MiB, predicting": (costs.predict_peak_mib, count),
        "seconds to meta-train": (training.seconds, seconds),
        "peak MiB, meta-training": (training.peak_mib, count),
        "outer steps": (training.outer_steps, count),
        "parameters": (measured.parameters, count),
        "adapted parameters": (measured.adapted_parameters, count),
        "MB saved": (measured.bytes_saved, _megabytes),
    }
    cells = {title: Cell(text(value), value) for title, (value, text) in columns.items()}
    return cells | {"device": Cell(measured.device or NONE)}


def _megabytes(size: float | None) -> str:
    return NONE if size is None else f"{size / 1e6:,.1f}"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return NONE if value is None else str(value)
