"""ByEvidence: what meta-training settled once for all tasks, chosen anew where a support set speaks clearly against it.

    evidence = max_α [ sum_i w_i log p(y_i | all rows but i) + log prior(α) ]          see `closed_form`
    taken is the setting with the largest evidence - cost

The encoder is the trained one, or the untouched one: meta-training helps on most tasks, and on some it takes away what
tells the labels apart, e.g. of many close topics. A label name counts κ, a multiple of it, or nothing. The penalty of
the head is the learned λ, or a multiple of it. What was learned costs nothing. The other encoder costs 5, which asks
for odds of 150 to 1; a step of the names costs 3, and a step of the penalty 2. So a few rows change little, and many
rows decide by themselves. The odds are those of rows that count once. One setting is chosen after the other: encoder,
names, penalty.

Only rows count whose class has another example. Without it, what is weighed would be how well the name alone does,
which says little about a name beside an example. Costs and choices were found on meta-validation tasks (dev/LOG.md).
"""

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from quickstudy.errors import RecipeError
from quickstudy.methods.base import EpisodeLoss, MetaLearner
from quickstudy.methods.closed_form import Ridge
from quickstudy.methods.feature import FeatureMetaLearner
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import EncodedEpisode, EncodedSet
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache, FeatureCaches
from quickstudy.models.target import Target

COSTS = (5.0, 3.0, 2.0)  # of another encoder, a factor of 4 of κ, a factor of 2 of λ
TRIED: dict[str, tuple[Any, ...]] = {
    "untouched": (True,),
    "names": (0.0, 0.25, 4.0),
    "penalty": (0.0625, 0.125, 0.25, 0.5, 2.0, 4.0),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is chosen for a support set.

    Attributes:
        untouched: Whether the encoder is the one before meta-training.
        names: Factor of κ.
        penalty: Factor of λ.
    """

    untouched: bool = False
    names: float = 1.0
    penalty: float = 1.0

    @property
    def cost(self) -> float:
        """How much evidence the setting needs beyond that of the learned one."""
        encoder, names, penalty = COSTS
        name_steps = abs(math.log(max(self.names, 1 / 16), 4))
        return encoder * self.untouched + names * name_steps + penalty * abs(math.log2(self.penalty))

    def __str__(self) -> str:
        parts = ["the encoder without its meta-training"] if self.untouched else []
        if self.names != 1:
            parts.append(f"label names that count {self.names:g} times as much" if self.names else "no label names")
        if self.penalty != 1:
            parts.append(f"{self.penalty:g} times the penalty of the head")
        return ", ".join(parts)


class ByEvidence(MetaLearner):
    """A trained learner whose settings a support set may change.

    Args:
        trained: The learner.
        rule: Its rule.
        untouched: Its encoder before meta-training.
    """

    def __init__(self, trained: FeatureMetaLearner, rule: Ridge, untouched: Encoder) -> None:
        super().__init__(trained.encoder, "head", trained.name, meta_trains=trained.meta_trains)
        self.trained, self.rule, self.untouched = trained, rule, untouched

    @property
    def reads_names(self) -> bool:
        return self.trained.reads_names

    @property
    def weighs(self) -> bool:
        return self.trained.weighs

    def alternatives(self, target: Target) -> tuple[MetaLearner, ...]:
        return (self.trained, self.with_setting(Setting(untouched=True))) if target.label_names else (self.trained,)

    @torch.no_grad()
    def for_support(self, support: EncodedSet, target: Target, caches: FeatureCaches) -> MetaLearner:
        if not target.label_names:
            return self.trained
        named = self.reads_names and bool(len(target.encode_names(self.encoder, pair=support.pair)))
        chosen = Setting()
        best = self._weigh(chosen, support, target, caches)
        for what, values in TRIED.items():
            if what == "names" and not named:
                continue
            for other in [replace(chosen, **{what: value}) for value in values]:
                # Evidence is at most 0, so that some settings need not be tried.
                if -other.cost > best and (weighed := self._weigh(other, support, target, caches)) > best:
                    chosen, best = other, weighed
        return self.with_setting(chosen)

    def adapt(self, support: EncodedSet, target: Target, *, cache: FeatureCache | None = None) -> AdaptedModel:
        caches = FeatureCaches(cache)
        learner = self.for_support(support, target, caches)
        return learner.adapt(support, target, cache=caches.of(learner.encoder))

    def episode_loss(self, episode: EncodedEpisode, progress: float) -> EpisodeLoss:
        raise RecipeError(f"{self.name} of a compact run is not meta-trained", fix="Meta-train the run itself.")

    def with_setting(self, setting: Setting) -> FeatureMetaLearner:
        """Return the learner with a setting; it shares its encoders and all that was learned."""
        if setting == Setting():
            return self.trained
        rule, gate = copy(self.rule), copy(self.trained.gate)
        rule.penalty_factor = setting.penalty
        if gate:
            gate.factor = setting.names
        encoder = self.untouched if setting.untouched else self.encoder
        learner = FeatureMetaLearner(encoder, rule, gate=gate, meta_trains=False, name=self.name)
        learner.chosen = str(setting)
        return learner

    def _weigh(self, setting: Setting, support: EncodedSet, target: Target, caches: FeatureCaches) -> float:
        """Return the evidence for a setting without its cost; -∞ if it cannot be told."""
        learner = self.with_setting(setting)
        rule, rows = learner.rule, learner.read(support, target, caches.of(learner.encoder))
        assert isinstance(rule, Ridge)
        evidence = rule.evidence(learner.with_names(*rows), len(support.labels), target.size)
        return -math.inf if math.isnan(evidence) else evidence - setting.cost


def by_evidence(learner: MetaLearner, untouched: Encoder) -> MetaLearner:
    """Return the learner that may choose its settings, or the learner itself if it has no calibrated ridge head."""
    if isinstance(learner, FeatureMetaLearner) and isinstance(learner.rule, Ridge) and learner.rule.calibrated:
        return ByEvidence(learner, learner.rule, untouched)
    return learner
