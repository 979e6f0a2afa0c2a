"""EncoderPasses: how a method runs the encoder in an episode, counted in passes forward.

    a pass forward                                  1
    with its gradient                               3      the gradient of a matrix product is two products
    a second-order inner step, there and back       9      going back through a gradient is six passes more
    the same, run again on the way back            12

Counts are of one episode; below and above are the layers under and over the lowest one that adapts.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EncoderPasses:
    """What an episode asks of the encoder.

    Attributes:
        way: Name of the way that was taken.
        why: Why it is the cheapest exact one.
        support: Passes over the support set (below, above); None where they are not known beforehand.
        query: Passes over the query set (below, above).
        graphs: Graphs of inner steps that are held at once, each of a second-order step.
        copies: Copies of the adapted parameters that are held at once, or as many numbers.
        rows: Whether of the word embeddings only the rows in play adapt.
    """

    way: str
    why: str
    support: tuple[float, float] | None = (3, 3)
    query: tuple[float, float] = (3, 3)
    graphs: int = 0
    copies: int = 0
    rows: bool = False


FEATURES_ONCE = EncoderPasses(
    "features once", "no encoder parameter adapts, so that one pass gives all that is needed of the encoder"
)
