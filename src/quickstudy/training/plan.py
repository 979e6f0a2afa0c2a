"""Plan: what an episode will cost, before it is run: operations, memory traffic, memory.

    operations   passes · (2 · weights of the layers · tokens + attention)     passes: see `methods.work`
    traffic      passes · (weights of the layers + 2 · activations)            each read or written once
    memory       gradients + copies of φ + activations that graphs hold        beyond weights and moments

Operations are those of the layers' matrix products and attention: the head's own and what is elementwise are left out, and the
lowest layer that is trained needs no gradient of its input (0.3 to 6 % less than reckoned). Memory is an estimate: how much a
layer keeps per token was measured on MiniLM (dev/LOG.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import EncodedEpisode
from quickstudy.models.cut import layer_stack
from quickstudy.models.encoder import Encoder
from quickstudy.models.tokens import Sequences

# Numbers per token and hidden unit that a layer's graph holds: of a pass, of a second-order step.
_FIRST, _SECOND = 26, 42


@dataclass(frozen=True, slots=True)
class Plan:
    """What an episode is reckoned to cost, the mean over some.

    Attributes:
        way: How the encoder runs; see `Work`.
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
        at_once: Episodes that are worked on at once; memory is for all of them, the rest for one.
    """
    encoder, work, share, n = learner.encoder, learner.work(), learner.partition.share, len(episodes)
    shape = _Shape.of(encoder)
    support = _sum([_Load.of(encoder, episode.support.sequences) for episode in episodes]).over(n)
    query = _sum([_Load.of(encoder, episode.query.sequences) for episode in episodes]).over(n)
    operations = traffic = None
    if work.support is not None:
        passes = [below * (1 - share) + above * share for below, above in (work.support, work.query)]
        operations = sum(p * shape.operations(load) for p, load in zip(passes, (support, query), strict=True))
        traffic = sum(p * shape.traffic(load) for p, load in zip(passes, (support, query), strict=True))
    sets = (episodes[0].support.sequences, episodes[0].query.sequences)
    played = learner.partition.in_play(*sets) if work.rows else None
    adapted = sum(p.numel() for p in learner.partition.initial(played).values())
    trained = sum(p.numel() for p in encoder.model.parameters() if p.requires_grad)
    flows = work.support is None or work.support[0] > 1
    held = _SECOND * work.graphs * share + (_FIRST * (1 - share) if flows else 0)  # of the support set's tokens
    kept = work.copies * adapted + held * shape.activations(support) + _FIRST * shape.activations(query)
    if not work.graphs:  # the graph of a first-order step is gone before that of the query loss
        kept = max(kept, work.copies * adapted + _FIRST * shape.activations(support))
    return Plan(
        work.way,
        work.why,
        support.tokens + query.tokens,
        support.computed + query.computed,
        operations,
        traffic,
        (trained + at_once * kept) * shape.bytes / 2**20,
    )


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

    def over(self, n: int) -> "_Load":
        return _Load(self.tokens / n, self.computed / n, self.pairs / n)


def _sum(loads: Sequence[_Load]) -> _Load:
    return _Load(sum(x.tokens for x in loads), sum(x.computed for x in loads), sum(x.pairs for x in loads))


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
