"""EncoderPasses: how a method runs the encoder in an episode, counted in passes forward.

    one pass forward                                                   1
    a pass forward and its gradient                                    3     the gradient of a product is two products
    a second-order inner step, forward and back                        9     a gradient of a gradient is six more passes
    a second-order inner step that runs a second time on the way back  12

All counts are of one episode. *Below* and *above* are the layers below and above the lowest layer that adapts.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EncoderPasses:
    """What an episode asks of the encoder.

    Attributes:
        way: Name of the way that is taken.
        why: Why it is the cheapest exact one.
        support: Passes over the support set (below, above); None if they are not known beforehand.
        query: Passes over the query set (below, above).
        graphs: How many graphs of second-order inner steps are held at once.
        copies: How many copies of the adapted parameters are held at once, counting other numbers as copies too.
        rows: Whether only the embedding rows in use adapt.
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
