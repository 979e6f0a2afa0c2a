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
        flows: Whether a graph of the pass over the support set below what adapts is held until the query loss.
        held: How many graphs of passes over it above are held as long, beside those of inner steps.
        inner: Whether there are first-order inner steps, each with a graph above that is gone after the step.
        joint: Whether these steps read the query set too, and no other graph of it is made.
        updates_apart: Whether two of the copies are there only while no graph is.
        reaches_adapted_only: Whether the encoder's other meta-parameters get no gradient.
    """

    way: str
    why: str
    support: tuple[float, float] | None = (3, 3)
    query: tuple[float, float] = (3, 3)
    graphs: int = 0
    copies: int = 0
    rows: bool = False
    flows: bool = True
    held: int = 0
    inner: bool = False
    joint: bool = False
    updates_apart: bool = False
    reaches_adapted_only: bool = False


FEATURES_ONCE = EncoderPasses(
    "features once", "no encoder parameter adapts, so that one pass gives all that is needed of the encoder"
)
