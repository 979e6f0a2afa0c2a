"""Memory: how much a meta-training takes at its peak, estimated before it starts from what is held at the same time.

    training   moments + max(gradients of the groups before + group, gradients + temporary numbers of the largest)
    group      the sum over the episodes that are computed at once
    episode    copies · φ + graphs of the support set that are kept + the larger one of the graph of the query set and
               that of a first-order inner step, which is gone before

The moments of AdamW are two numbers for each meta-parameter that gets a gradient. `EncoderPasses` says which graphs and
copies a method holds; `GraphSize` says how large a graph is. Groups are what is computed at once; the gradients of the
groups before stay while a group is computed. On a processor the process holds more than its tensors: the libraries set
up their own buffers at their first step, and the C library leaves holes between blocks of different sizes. Both were
measured once for all methods (benchmarks/memory.py).
"""

from collections.abc import Sequence

from torch import nn

from quickstudy.methods.base import MetaLearner
from quickstudy.methods.passes import EncoderPasses
from quickstudy.models.batch import EncodedEpisode
from quickstudy.models.cut import layer_stack
from quickstudy.models.graph_size import GraphSize, measure_graph
from quickstudy.training.load import Load, count_query

_BUFFERS_MIB, _HOLES = 40, 1.22  # on a processor: see above
_TEMPORARY = 2  # of the largest parameter: AdamW's denominator, and a gradient before it is added


def estimate_memory(learner: MetaLearner, episodes: Sequence[EncodedEpisode], at_once: int = 1) -> float:
    """Return the memory of a meta-training, in MiB, beyond what is held before its first step.

    Args:
        learner: The learner as it is trained: what is meta-trained requires a gradient, and nothing else does.
        episodes: Those of this process in a meta-batch.
        at_once: How many of them are computed at once. The largest ones count.
    """
    like = next(learner.encoder.model.parameters())
    mib: float = count_numbers(learner, episodes, at_once) * like.element_size() / 2**20
    return _BUFFERS_MIB + _HOLES * mib if like.device.type == "cpu" else mib


def count_numbers(learner: MetaLearner, episodes: Sequence[EncodedEpisode], at_once: int = 1) -> float:
    """Return how many numbers the tensors of a meta-training hold at its peak; see `estimate_memory`."""
    passes = learner.encoder_passes()
    sizes = [p.numel() for p in _trained(learner, passes)]
    held = sorted(_Held(learner, passes).of(episode) for episode in episodes)
    group = sum(held[-at_once:]) + (sum(sizes) if len(episodes) > at_once else 0)
    return 2 * sum(sizes) + max(group, sum(sizes) + _TEMPORARY * max(sizes, default=0))


def _trained(learner: MetaLearner, passes: EncoderPasses) -> list[nn.Parameter]:
    """Return the meta-parameters that get a gradient."""
    trained = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    if passes.reaches_adapted_only:
        kept, prefix = learner.partition.names, "encoder.model."
        trained = [(n, p) for n, p in trained if not n.startswith(prefix) or n.removeprefix(prefix) in kept]
    return [p for _, p in trained]


class _Held:
    """How many numbers the graphs and copies of an episode hold at their peak.

    Args:
        learner: The learner.
        passes: How it runs the encoder.
    """

    def __init__(self, learner: MetaLearner, passes: EncoderPasses) -> None:
        self.learner, self.passes, self.encoder = learner, passes, learner.encoder
        names = learner.partition.names
        self.layers = len(layer_stack(self.encoder.model)[1])
        self.first = measure_graph(self.encoder.model)
        self.second = measure_graph(self.encoder.model, names, second=True) if passes.graphs else GraphSize(0, 0)
        # Without a meta-parameter in the encoder, graphs begin where it adapts.
        trains = any(p.requires_grad for p in self.encoder.model.parameters())
        self.above = learner.partition.layer_fraction
        self.below = 1 - self.above if trains else 0.0

    def of(self, episode: EncodedEpisode) -> float:
        """Return how many numbers the gradient of an episode holds."""
        passes, first, above = self.passes, self.first, self.above
        support = Load.count(self.encoder, episode.support.sequences)
        query = count_query(self.learner, episode)
        of_support, of_query = (first.of(load.computed, load.pairs) for load in (support, query))
        kept = (self.below * passes.flows + above * passes.held) * of_support
        kept += passes.graphs * self.second.of(support.computed, support.pairs)
        if passes.graphs:  # on the way back through a step: the gradients of one layer's numbers
            kept += of_support / self.layers
        graphs = kept + max((self.below + above) * of_query, passes.inner * above * of_support)
        if passes.joint:
            graphs = kept + self.below * of_query + above * (of_support + of_query)
        adapted = self._adapted(episode)
        # The update of a first-order step, which makes two of the copies, begins when the step's graph is gone.
        return max(passes.copies * adapted, (passes.copies - 2 * passes.updates_apart) * adapted + graphs)

    def _adapted(self, episode: EncodedEpisode) -> float:
        """Return how many numbers adapt, the head's among them; none if nothing is copied."""
        if not self.passes.copies:
            return 0
        partition, tokens = self.learner.partition, None
        if self.passes.rows:
            tokens = partition.tokens_in_use(episode.support.sequences, episode.query.sequences)
        head = (self.encoder.feature_size(pair=episode.support.pair) + 1) * episode.target.size
        return sum(p.numel() for p in partition.initial(tokens).values()) + head
