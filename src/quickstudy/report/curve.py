"""Curve: what a page shows of a meta-training, from the records of its outer steps."""

import math
from collections.abc import Sequence

from quickstudy.evaluation.results import Curve
from quickstudy.training.record import StepRecord


def curve_of(records: Sequence[StepRecord], *, most: int | None = None) -> Curve:
    """Return the curve of a meta-training.

    Args:
        records: The records of its outer steps.
        most: How many steps to show; they are spread evenly. None for all.
    """
    steps = [record for record in records if record.step]
    shown = steps[:: -(-len(steps) // most)] if most and steps else steps
    return Curve(
        step=tuple(record.step for record in shown),
        loss=tuple(None if math.isnan(record.loss) else record.loss for record in shown),
        validation=tuple((record.step, record.validation) for record in records if record.validation is not None),
    )
