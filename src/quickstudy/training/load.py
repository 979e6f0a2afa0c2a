"""Load: the sizes of a set of sequences as the encoder runs them."""

from dataclasses import dataclass

from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import EncodedEpisode
from quickstudy.models.encoder import Encoder
from quickstudy.models.tokens import Sequences


@dataclass(frozen=True, slots=True)
class Load:
    """The sizes of a set: tokens, tokens with padding, and pairs of tokens that share a row."""

    tokens: float
    computed: float
    pairs: float

    @classmethod
    def count(cls, encoder: Encoder, sequences: Sequences) -> "Load":
        """Return the load of some sequences."""
        rows = [batch.inputs["input_ids"].shape for batch in encoder.batches(sequences)]
        return cls(sum(map(len, sequences.ids)), sum(b * t for b, t in rows), sum(b * t * t for b, t in rows))


def count_query(learner: MetaLearner, episode: EncodedEpisode) -> Load:
    """Return the load of the query set, and of label names if they are read: they run once too, with their gradient."""
    load = Load.count(learner.encoder, episode.query.sequences)
    if not learner.reads_names or not len(episode.names):
        return load
    names = Load.count(learner.encoder, episode.names)
    return Load(load.tokens + names.tokens, load.computed + names.computed, load.pairs + names.pairs)
