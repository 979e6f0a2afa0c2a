"""Metrics: scores of predictions, by name; scikit-learn and scipy compute them.

    accuracy, precision, recall, f1 (macro), mcc        classification
    log_loss, ece, reliability                          of its probabilities
    per_class, confusion                                precision, recall, f1 of each label; true × predicted counts
    pearson, spearman, mse                              regression
    metric                                              the task's own, as GLUE defines it

GLUE's own metrics: MCC for CoLA; the mean of accuracy and F1 of label 1 for MRPC and QQP; the mean of Pearson and
Spearman for STS-B; accuracy for the others. A score that is undefined (a constant prediction has no correlation) is
0, as in GLUE's own scripts. The expected calibration error, which scikit-learn does not have, is that of Guo et al.
2017, arXiv:1706.04599: the mean distance of confidence and accuracy over 15 equal bins of confidence, weighted by
their rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from quickstudy.evaluation.constant import is_constant
from quickstudy.evaluation.record import Calibration, LabelFigures, LabelScores, Reliability
from quickstudy.tasks.task import Task

_BINS = 15


class Figures(NamedTuple):
    """What is measured of a draw's predictions: scores by name, and of classes the calibration and label figures."""

    scores: dict[str, float]
    calibration: Calibration | None = None
    labels: LabelFigures | None = None


def figures(task: Task, label_names: Sequence[str], labels: ArrayLike, outputs: NDArray[np.float64]) -> Figures:
    """Return all figures of a draw.

    Args:
        task: Says which metrics apply.
        label_names: The labels that can be predicted: in an episode some of the task's, in an order of its own.
        labels: (B,) positions of the true labels among these, or scores.
        outputs: (B, N) probability of each label, or (B,) predicted scores.
    """
    y = np.asarray(labels)
    if task.kind == "regression":
        return Figures(score(task, y, outputs))
    predicted = outputs.argmax(-1)
    place = np.array([task.label_names.index(name) for name in label_names])
    scores = score(replace(task, label_names=tuple(label_names), label_descriptions={}), y, predicted)
    scores["metric"] = score(task, place[y], place[predicted])["metric"]  # it may be F1 of one label of the task
    of_labels = label_figures(place[y], place[predicted], len(task.label_names), place)
    return Figures(scores, calibration(y, outputs), of_labels)


def score(task: Task, labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """Return the scores of a task's predictions, by name.

    Args:
        task: Says which metrics apply.
        labels: (B,) true label positions or scores.
        predictions: (B,) predicted ones.
    """
    y, p = np.asarray(labels), np.asarray(predictions)
    scores = _regression(y, p) if task.kind == "regression" else _classification(y, p, len(task.label_names))
    return scores | {"metric": _task_metric(task.metric, y, p, scores)}


def calibration(labels: ArrayLike, probabilities: ArrayLike) -> Calibration:
    """Return how far probabilities can be trusted.

    Args:
        labels: (B,) true label positions.
        probabilities: (B, N) probability of each label.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    p = p / p.sum(-1, keepdims=True)  # rounding in single precision
    confidence, right = p.max(-1), p.argmax(-1) == y
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count, sums, hits = (np.bincount(place, weights, _BINS) for weights in (None, confidence, right))
    return Calibration(
        log_loss=float(log_loss(y, p, labels=np.arange(p.shape[1]))),
        ece=float(np.abs(sums - hits).sum() / len(y)),
        reliability=Reliability(tuple(count.tolist()), tuple(sums.tolist()), tuple(hits.astype(int).tolist())),
    )


def label_figures(labels: ArrayLike, predictions: ArrayLike, n_way: int, asked: ArrayLike) -> LabelFigures:
    """Return precision, recall and F1 of each of N labels, and the confusion matrix, N true × N predicted counts.

    Args:
        labels: (B,) true label positions.
        predictions: (B,) predicted ones.
        n_way: Number of labels (N) of the task.
        asked: Labels that can be predicted: in an episode some of them; the others have no scores (None).
    """
    every, chosen = np.arange(n_way), set(np.asarray(asked).tolist())
    scores = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0.0)[:3]
    columns = [tuple(float(v) if i in chosen else None for i, v in enumerate(values)) for values in scores]
    matrix = confusion_matrix(labels, predictions, labels=every).tolist()
    return LabelFigures(LabelScores(*columns), tuple(map(tuple, matrix)))


def main_metric(task: Task) -> str:
    """Return the metric that tables show: accuracy, or for regression the task's own."""
    return "metric" if task.kind == "regression" else "accuracy"


def _classification(y: NDArray[np.int64], p: NDArray[np.int64], n_way: int) -> dict[str, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(
        y, p, labels=np.arange(n_way), average="macro", zero_division=0.0
    )
    return {
        "accuracy": float(accuracy_score(y, p)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "mcc": float(matthews_corrcoef(y, p)) if np.ptp(np.concatenate([y, p])) else 0.0,
    }


def _regression(y: NDArray[np.float64], p: NDArray[np.float64]) -> dict[str, float]:
    constant = is_constant(y) or is_constant(p)
    return {
        "pearson": 0.0 if constant else float(pearsonr(y, p).statistic),
        "spearman": 0.0 if constant else float(spearmanr(y, p).statistic),
        "mse": float(np.mean((y - p) ** 2)),
    }


def _task_metric(name: str, y: ArrayLike, p: ArrayLike, scores: dict[str, float]) -> float:
    if name == "accuracy_f1":
        return (scores["accuracy"] + float(f1_score(y, p, pos_label=1, zero_division=0.0))) / 2
    if name == "pearson_spearman":
        return (scores["pearson"] + scores["spearman"]) / 2
    return scores[name]
