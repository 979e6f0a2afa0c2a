"""Prediction: what a model says about a text, as it is printed."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about a text.

    Attributes:
        text: The text; of a pair, the first one.
        answer: The most likely label, or the number that a regression model predicts.
        probabilities: The probability of each label; None for regression.
    """

    text: str
    answer: str | float
    probabilities: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, object]:
        """Return the prediction as plain values.

        >>> Prediction("late fee", "fees", {"fees": 0.9, "cards": 0.1}).to_json()
        {'text': 'late fee', 'label': 'fees', 'probabilities': {'fees': 0.9, 'cards': 0.1}}
        >>> Prediction("late fee", 4.5).to_json()
        {'text': 'late fee', 'value': 4.5}
        """
        if self.probabilities is None:
            return {"text": self.text, "value": self.answer}
        return {"text": self.text, "label": self.answer, "probabilities": dict(self.probabilities)}
