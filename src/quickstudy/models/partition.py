"""Partition: runs an encoder of which some parameters adapt, and are given from outside.

    prefix(texts)            what does not depend on the adapted parameters; it runs once per episode
    features(φ, prefix)      the rest, under adapted parameters φ; it runs at every inner step

If nothing of the encoder adapts, the prefix is all of it, and `features` returns what is there. Otherwise `Way` says
how much of the encoder the prefix holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quickstudy.errors import RunError
from quickstudy.models.cut import Params
from quickstudy.models.encoder import Encoder, restore_order
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.parameter_filter import select
from quickstudy.models.tokens import Batch, Sequences
from quickstudy.models.way import choose_way


@dataclass(frozen=True, slots=True)
class Prefix:
    """The part of the work on some examples that need not run again.

    Attributes:
        started: What the rest goes on from, one entry per batch; where nothing adapts, the vectors of all sequences.
        batches: The batches, of texts of similar length; none where nothing adapts.
        pairs: Whether the sequences are separate pairs.
        place: (V,) the position of each token's word embedding among the rows in use; None if the whole table is
            given.
    """

    started: list[Any]
    batches: list[Batch]
    pairs: bool
    place: Tensor | None = None


class Partition:
    """An encoder and which of its parameters adapt.

    Args:
        encoder: The encoder; its own parameters are never changed.
        adapts: A parameter filter; see `parameter_filter`.

    Attributes:
        names: Names of the parameters that adapt.
        way: How the encoder runs.
    """

    def __init__(self, encoder: Encoder, adapts: str) -> None:
        self.encoder, self.adapts = encoder, adapts
        self.names = select(encoder.model, adapts)
        self.way = choose_way(encoder.model, self.names)

    @property
    def layer_fraction(self) -> float:
        """The layers that run at every inner step, as a fraction of all."""
        return self.way.layer_fraction if self.names else 0.0

    def tokens_in_use(self, *sets: Sequences) -> Tensor | None:
        """Return the tokens of some sequences, (U,), whose word embeddings adapt; None if the table is not split."""
        return self.way.rows.tokens_in_use(sets, self.encoder.device) if self.way.rows else None

    def initial(self, tokens: Tensor | None = None) -> Params:
        """Return the values θ of the adapted parameters before the first step, by name.

        Meta-parameters are in the graph; parameters that are not trained become leaves of a graph.

        Args:
            tokens: From `tokens_in_use`: the table of word embeddings then has these rows alone.
        """
        with self.encoder.run_lock.shared():
            theta: Params = {name: p for name, p in self.encoder.model.named_parameters() if name in self.names}
        if self.way.rows and tokens is not None:
            theta[self.way.rows.name] = theta[self.way.rows.name][tokens]
        return {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in theta.items()}

    def restore_table(self, params: Params, tokens: Tensor | None) -> Params:
        """Return adapted parameters in which the rows in use are put back into the whole table of word embeddings."""
        if self.way.rows is None or tokens is None:
            return params
        name = self.way.rows.name
        with self.encoder.run_lock.shared():
            table = self.encoder.model.get_parameter(name)
        return params | {name: table.detach().index_copy(0, tokens, params[name])}

    def prefix(
        self, sequences: Sequences, tokens: Tensor | None = None, *, cache: FeatureCache | None = None
    ) -> Prefix:
        """Run what need not run again.

        Args:
            sequences: What the features will be of.
            tokens: From `tokens_in_use`, if parameters will be given by the rows in use.
            cache: Remembers vectors, where nothing of the encoder adapts.

        Raises:
            RunError: The model's own gradient checkpointing is on.
        """
        self._refuse_checkpointing()
        if not self.names:
            return Prefix([self.encoder.vectors(sequences, cache=cache)], [], sequences.pairs)
        batches = list(self.encoder.batches(sequences))
        with self.encoder.run_lock.alone():
            started = [self.way.start(batch.inputs) for batch in batches]
        place = self.way.rows.place(tokens) if self.way.rows and tokens is not None else None
        return Prefix(started, batches, sequences.pairs, place)

    def features(self, params: Mapping[str, Tensor], prefix: Prefix) -> Tensor:
        """Return the features, (B, F), under adapted parameters `params`; other entries of the mapping are ignored."""
        if not self.names:
            return self.encoder.join(prefix.started[0], pairs=prefix.pairs)
        adapted = {name: params[name] for name in self.names}
        pooled = []
        with self.encoder.run_lock.alone():
            for started, batch in zip(prefix.started, prefix.batches, strict=True):
                states = self.way.finish(adapted, started, prefix.place)
                pooled.append(self.encoder.pool(batch.states(states), batch.mask))
        return self.encoder.join(restore_order(pooled, [batch.rows for batch in prefix.batches]), pairs=prefix.pairs)

    def _refuse_checkpointing(self) -> None:
        model = self.encoder.model
        # This is the flag of transformers' layers; the model's own properties for it have changed names.
        if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            # It runs a layer again after the model's own weights are back in place: the meta-gradient would be wrong.
            raise RunError(
                "the model's own gradient checkpointing would recompute with weights that are not the adapted ones",
                fix="Leave it off.",
            )
