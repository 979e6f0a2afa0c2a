"""Settings of the outer loop: their defaults, ranges and meanings.

lr_t = outer_lr · min(1, t / warmup) · decay(t / outer_steps)              and likewise with method_lr

decay(x) = 1 - x  (linear)      (1 + cos π x) / 2  (cosine, as in MAML++, Antoniou et al. 2019, arXiv:1810.09502)
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class OuterSettings:
    """Settings of the outer loop.

    A recipe is checked against the ranges in the annotations; values from Python are taken as they are.

    Attributes:
        outer_steps: Updates of the meta-parameters; 1 or more.
        outer_lr: Peak learning rate of the encoder; above 0.
        method_lr: Peak learning rate of what the method learns beside the encoder (scales, learned rates, generators);
            above 0.
        meta_batch_size: Episodes per update (M), over all processes; 1 to 65,536.
        max_length: Tokens per sequence of an episode; longer ones are cut. None: as many as the encoder reads. Short
            texts make a step cheaper, and the encoder can still read long ones afterwards.
        warmup_steps: Steps in which the rate rises linearly to its peak; 0 or more. None: a tenth of the outer steps,
            but 50 at most.
        schedule: How the rates fall to zero after the warm-up: `linear`, or `cosine`.
        weight_decay: AdamW's weight decay of the encoder; 0 or more.
        clip_norm: A meta-gradient with a larger norm is scaled down to this norm; above 0.
        trains: Which encoder parameters are trained: `all`, `layers`, which leaves the embeddings as they are, or
            `none`, which trains only what the method learns beside the encoder.
        validate_every: Steps between two meta-validations; 1 or more. A checkpoint is written at the same steps.
        patience: The loop stops after this many meta-validations without a better score; 0 never stops it early.
        keep: The meta-parameters that the run ends with: `best` (the highest meta-validation score) or `last`.
        validation_episodes: Episodes of one meta-validation; 1 to 1,000,000.
        max_left_out: An episode whose loss or gradient is NaN or infinite is left out. The run stops if this happens to
            more than this fraction of the episodes of ten outer steps; 0 to 1.
        mixed_precision: `no` computes in single precision, `bf16` mostly in bfloat16.
        trackers: Experiment trackers of accelerate that are told of every step.
    """

    outer_steps: Positive = 500
    outer_lr: Rate = 3e-5
    method_lr: Rate = 1e-2
    meta_batch_size: Annotated[int, Field(ge=1, le=65_536)] = 4
    max_length: Annotated[int, Field(ge=8)] | None = None
    warmup_steps: NonNegative | None = None
    schedule: Literal["linear", "cosine"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Rate = 1.0
    trains: Literal["all", "layers", "none"] = "layers"
    validate_every: Positive = 100
    patience: NonNegative = 0
    keep: Literal["best", "last"] = "best"
    validation_episodes: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    max_left_out: Annotated[float, Field(ge=0, le=1)] = 0.5
    mixed_precision: Literal["no", "bf16"] = "no"  # fp16 would need its gradients unscaled
    trackers: list[str] = field(default_factory=list)

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", allow_inf_nan=False, revalidate_instances="always"
    )

    @property
    def warmup(self) -> int:
        """The steps of the warm-up, with the default filled in.

        >>> OuterSettings(outer_steps=200).warmup, OuterSettings(outer_steps=5000).warmup
        (20, 50)
        """
        return min(50, self.outer_steps // 10) if self.warmup_steps is None else self.warmup_steps

    def is_due(self, step: int) -> bool:
        """Whether the meta-parameters after a step are validated and saved.

        >>> [step for step in range(1, 8) if OuterSettings(outer_steps=7, validate_every=3).is_due(step)]
        [3, 6, 7]
        """
        return step % self.validate_every == 0 or step == self.outer_steps
