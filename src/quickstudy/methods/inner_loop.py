"""InnerLoop: the settings that all methods with an inner loop share."""

from dataclasses import dataclass

from quickstudy.methods.setting import AboveZero, NotNegative, Steps


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """What adapts in an inner loop, how fast, and for how many steps.

    Attributes:
        adapts: Which encoder parameters adapt beside the head: `head` (none of the encoder), `layers:-m` (the top m
            layers), `bias` (all biases), `lora` or `lora:r` (low-rank corrections of rank r, 4 by default), or `all`.
        inner_lr: Inner rate of encoder parameters.
        head_lr: Inner rate of the head, which needs a much larger rate. None stands for `inner_lr`.
        inner_steps: Inner steps in meta-training.
        adapt_steps: Inner steps when adapting to a task for use. If it is not given, it is `inner_steps`.
    """

    adapts: str = "all"
    inner_lr: NotNegative = 0.05
    head_lr: AboveZero | None = 3.0
    inner_steps: Steps = 5
    adapt_steps: Steps | None = None
