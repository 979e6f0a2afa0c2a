"""Plan: what an episode will cost, before it is run: operations, memory traffic, memory.

    operations   passes · (2 · weights of the layers · tokens + attention)     passes: see `methods.passes`
    traffic      passes · (weights of the layers + 2 · activations)            each read or written once
    memory       gradients + copies of φ + activations that graphs hold        beyond weights and moments

Operations are those of the layers' matrix products and attention: the head's own and what is elementwise are left out, and the
lowest layer that is trained needs no gradient of its input (0.3 to 6 % less than reckoned). Memory is an estimate: how much a
layer keeps per token was measured on MiniLM (dev/LOG.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from quickstudy.methods.base import MetaLearner
from quickstudy.methods.passes import EncoderPasses
from quickstudy.models.batch import EncodedEpisode
from quickstudy.models.cut import layer_stack
from quickstudy.models.encoder import Encoder
from quickstudy.models.tokens import Sequences

# Numbers per token and hidden unit that a layer's graph holds: of a pass, of a second-order step.
_FIRST, _SECOND = 26, 42


@dataclass(frozen=True, slots=True)
class Plan:
    """What an episode is reckoned to cost, the mean over some; memory is that of the largest.

    Attributes:
        way: How the encoder runs; see `EncoderPasses`.
        why: Why so.
        tokens: Of the support and the query set, without padding.
        computed: The same with padding.
        operations: Floating-point operations; None where the passes are not known beforehand.
        traffic: Bytes of weights and activations that are read or written, each once per pass; None likewise.
        memory_mib: Memory beyond what is there before, while the meta-gradient of all that are worked on at once is taken.
    """

    way: str
    why: str
    tokens: float
    computed: float
    operations: float | None
    traffic: float | None
    memory_mib: float


def plan(learner: MetaLearner, episodes: Sequence[EncodedEpisode], at_once: int = 1) -> Plan:
    """Return what an episode costs; meta-parameters are the encoder's parameters that require a gradient.

    Args:
        learner: The learner as it would be trained.
        episodes: Some to count the tokens of.
        at_once: Episodes that are worked on at once; memory is for so many of the largest, the rest for one.
    """
    encoder, passes, fraction = learner.encoder, learner.encoder_passes(), learner.partition.layer_fraction
    shape = _Shape.of(encoder)
    loads = [(_Load.of(encoder, e.support.sequences), _Load.of(encoder, e.query.sequences)) for e in episodes]
    support, query = (_mean(part) for part in zip(*loads, strict=True))
    operations = traffic = None
    if passes.support is not None:
        counts = [below * (1 - fraction) + above * fraction for below, above in (passes.support, passes.query)]
        operations = sum(n * shape.operations(load) for n, load in zip(counts, (support, query), strict=True))
        traffic = sum(n * shape.traffic(load) for n, load in zip(counts, (support, query), strict=True))
    trained = sum(p.numel() for p in encoder.model.parameters() if p.requires_grad)
    kept = sorted(_kept(learner, passes, shape, e, both) for e, both in zip(episodes, loads, strict=True))
    return Plan(
        passes.way,
        passes.why,
        support.tokens + query.tokens,
        support.computed + query.computed,
        operations,
        traffic,
        (trained + sum(kept[-at_once:])) * shape.bytes / 2**20,
    )


def _kept(
    learner: MetaLearner,
    passes: EncoderPasses,
    shape: "_Shape",
    episode: EncodedEpisode,
    loads: tuple["_Load", "_Load"],
) -> float:
    """Return how many numbers an episode keeps while its meta-gradient is taken."""
    support, query = map(shape.activations, loads)
    share = learner.partition.layer_fraction
    played = learner.partition.in_play(episode.support.sequences, episode.query.sequences) if passes.rows else None
    adapted = passes.copies * sum(p.numel() for p in learner.partition.initial(played).values())
    flows = passes.support is None or passes.support[0] > 1
    held = _SECOND * passes.graphs * share + (_FIRST * (1 - share) if flows else 0)  # of the support set's tokens
    kept = adapted + held * support + _FIRST * query
    # The graph of a first-order step is gone before that of the query loss.
    return kept if passes.graphs else max(kept, adapted + _FIRST * support)


@dataclass(frozen=True, slots=True)
class _Load:
    """What the sequences of a set ask for: tokens, tokens with padding, and pairs of tokens in a row."""

    tokens: float
    computed: float
    pairs: float

    @classmethod
    def of(cls, encoder: Encoder, sequences: Sequences) -> "_Load":
        rows = [batch.inputs["input_ids"].shape for batch in encoder.batches(sequences)]
        return cls(sum(map(len, sequences.ids)), sum(b * t for b, t in rows), sum(b * t * t for b, t in rows))


def _mean(loads: Sequence[_Load]) -> _Load:
    return _Load(*(mean(getattr(load, name) for load in loads) for name in ("tokens", "computed", "pairs")))


@dataclass(frozen=True, slots=True)
class _Shape:
    """An encoder's layers: how many, their weights, their width, and bytes per number."""

    layers: int
    weights: int
    width: int
    bytes: int

    @classmethod
    def of(cls, encoder: Encoder) -> "_Shape":
        stack = layer_stack(encoder.model)[1]
        weights = sum(p.numel() for p in stack.parameters() if p.dim() == 2)
        like = next(encoder.model.parameters())
        return cls(len(stack), weights, int(encoder.model.config.hidden_size), like.element_size())

    def operations(self, load: _Load) -> float:
        """Of one pass forward."""
        return 2 * self.weights * load.computed + 4 * self.width * self.layers * load.pairs

    def activations(self, load: _Load) -> float:
        """Numbers: one per token, layer and hidden unit."""
        return self.layers * self.width * load.computed

    def traffic(self, load: _Load) -> float:
        """Bytes of one pass forward."""
        return self.bytes * (self.weights + 2 * _FIRST * self.activations(load))
