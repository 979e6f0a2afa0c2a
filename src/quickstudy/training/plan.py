"""Plan: an estimate of what an episode will cost, before it is run: operations, memory traffic and memory.

    operations   passes · (2 · weights of the layers · tokens + attention)     passes: see `methods.passes`
    traffic      passes · (weights of the layers + 2 · activations)            each is read or written once
    memory       see `training.memory`

Operations are those of the layers' matrix products and of attention. The operations of the head and elementwise
operations are left out; of masked-language modelling the head counts, because it scores each word of the vocabulary.
The lowest layer that is trained needs no gradient of its input, so real operations are 0.3 to 6 % fewer than the
estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from quickstudy.methods.base import MetaLearner
from quickstudy.models.batch import EncodedEpisode
from quickstudy.models.cut import layer_stack
from quickstudy.models.encoder import Encoder
from quickstudy.models.graph_size import measure_graph
from quickstudy.training.load import Load, count_query
from quickstudy.training.memory import estimate_memory

_MOVED = 26  # numbers that a layer reads or writes per token and hidden unit
_LOGITS = 3  # for each masked token and word of the vocabulary: logits, their log-softmax, and its gradient


@dataclass(frozen=True, slots=True)
class Plan:
    """The estimated cost of an episode: the mean over some episodes, except for memory.

    Attributes:
        way: How the encoder runs; see `EncoderPasses`.
        why: Why it runs in this way.
        tokens: Tokens of the support and the query set, without padding.
        computed: Tokens with padding.
        operations: Floating-point operations; None if the passes are not known beforehand.
        traffic: Bytes of weights and activations that are read or written, each once per pass; None likewise.
        memory_mib: Memory of the training beyond what was held before it: the meta-gradient of all episodes that are
            worked on at once, and the optimizer's moments.
    """

    way: str
    why: str
    tokens: float
    computed: float
    operations: float | None
    traffic: float | None
    memory_mib: float


def plan(learner: MetaLearner, episodes: Sequence[EncodedEpisode], at_once: int = 1) -> Plan:
    """Return the estimated cost of an episode.

    Args:
        learner: The learner as it is trained: the encoder's meta-parameters require a gradient, its others do not.
        episodes: The episodes whose tokens are counted.
        at_once: How many episodes are worked on at once. Memory is that of so many of the largest ones.
    """
    encoder, passes, fraction = learner.encoder, learner.encoder_passes(), learner.partition.layer_fraction
    shape = _Shape.measure(encoder)
    loads = [(Load.count(encoder, e.support.sequences), count_query(learner, e)) for e in episodes]
    support, query = (_mean(column) for column in zip(*loads, strict=True))
    operations = traffic = None
    if passes.support is not None:
        counts = [below * (1 - fraction) + above * fraction for below, above in (passes.support, passes.query)]
        operations = sum(n * shape.operations(load) for n, load in zip(counts, (support, query), strict=True))
        traffic = sum(n * shape.traffic(load) for n, load in zip(counts, (support, query), strict=True))
    return Plan(
        passes.way,
        passes.why,
        support.tokens + query.tokens,
        support.computed + query.computed,
        operations,
        traffic,
        estimate_memory(learner, episodes, at_once),
    )


@dataclass(frozen=True, slots=True)
class LanguagePlan:
    """The estimated cost of a step of masked-language modelling, over all of its passages.

    Attributes:
        tokens: Tokens of the passages, without padding.
        operations: Floating-point operations, those of the head with them.
        memory_mib: Memory for the gradient, beyond what was held before.
    """

    tokens: float
    operations: float
    memory_mib: float


def plan_language(encoder: Encoder, sizes: Sequence[int], masked: int) -> LanguagePlan:
    """Return the estimated cost of a step of masked-language modelling.

    Args:
        encoder: The encoder as it is trained: what is trained of it requires a gradient.
        sizes: Tokens of each passage; all of them go through the encoder at once.
        masked: Masked tokens.
    """
    shape, most, words = _Shape.measure(encoder), max(sizes), encoder.model.get_input_embeddings().weight
    load = Load(sum(sizes), len(sizes) * most, len(sizes) * most * most)
    # Forward, and back to the states; back to the weights too, if they are trained. E is the encoder's, W the head's.
    head = 2 * masked * ((3 if words.requires_grad else 2) * words.numel() + 3 * shape.width**2)
    trained = sum(p.numel() for p in encoder.model.parameters() if p.requires_grad) + shape.width**2
    held = measure_graph(encoder.model).of(load.computed, load.pairs) + _LOGITS * masked * words.shape[0]
    return LanguagePlan(load.tokens, 3 * shape.operations(load) + head, (trained + held) * shape.bytes / 2**20)


def _mean(loads: Sequence[Load]) -> Load:
    return Load(*(mean(getattr(load, name) for load in loads) for name in ("tokens", "computed", "pairs")))


@dataclass(frozen=True, slots=True)
class _Shape:
    """The layers of an encoder: how many there are, their weights, their width, and the bytes of a number."""

    layers: int
    weights: int
    width: int
    bytes: int

    @classmethod
    def measure(cls, encoder: Encoder) -> "_Shape":
        stack = layer_stack(encoder.model)[1]
        weights = sum(p.numel() for p in stack.parameters() if p.dim() == 2)
        like = next(encoder.model.parameters())
        return cls(len(stack), weights, int(encoder.model.config.hidden_size), like.element_size())

    def operations(self, load: Load) -> float:
        """Return the operations of a pass forward."""
        return 2 * self.weights * load.computed + 4 * self.width * self.layers * load.pairs

    def activations(self, load: Load) -> float:
        """Return how many numbers there are, with one for each token, layer and hidden unit."""
        return self.layers * self.width * load.computed

    def traffic(self, load: Load) -> float:
        """Return the bytes that a pass forward reads or writes."""
        return self.bytes * (self.weights + 2 * _MOVED * self.activations(load))
