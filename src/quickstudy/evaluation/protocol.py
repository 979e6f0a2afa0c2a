"""Protocol: what a learner adapts to and what it is scored on; named, versioned, and saved with the results.

    standard       fixed-draws where a task has published support sets, few-shot where it has none
    few-shot       K rows of each class of train, D draws; scored on the test split, or a fixed sample of it
    fixed-draws    the published support sets of K shots, the first D; scored likewise
    episodic       D episodes of N ways, K shots and Q queries, both from the test split (Vinyals et al. 2016);
                   regression tasks give N K and N Q rows
    full           all of train, D seeds of full fine-tuning; scored by the task's own metric, as GLUE does

Trials are a pure function of (protocol, task), so all learners get the same ones. The version says how trials are
drawn, and goes up when that changes. Drawn examples are saved by the hash of their content, so a file of draws gives
the same trials in every later version, and on rows in another order.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from quickstudy.errors import DataError, did_you_mean
from quickstudy.evaluation.record import Shots
from quickstudy.evaluation.results import UsedProtocol

ProtocolName = Literal["standard", "few-shot", "fixed-draws", "episodic", "full"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Protocol:
    """How learners are evaluated.

    Attributes:
        name: One of the above.
        shots: Labelled examples per class (K), several values; `("all",)` for `full`.
        draws: Support sets per K; episodes, or seeds.
        seed: Which support sets, episodes or test rows are drawn.
        limit: Score at most so many test rows, a fixed random sample; None for all.
        n_way: Classes of an episode (N), at most what the task has.
        n_query: Queries per class of an episode (Q).
        version: Says how trials are drawn.
        saved: File of draws that are used in place of drawing (see `saved_draws`).

    Raises:
        DataError: Impossible numbers, an unknown name, or a version that this quickstudy does not know.
    """

    name: ProtocolName = "standard"
    shots: tuple[Shots, ...] = (4, 8, 16)
    draws: int = 10
    seed: int = 0
    limit: int | None = None
    n_way: int = 5
    n_query: int = 15
    version: int = VERSION
    saved: str | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(ProtocolName):
            raise DataError(f"there is no protocol {self.name!r}", fix=did_you_mean(self.name, get_args(ProtocolName)))
        if self.version != VERSION and not self.saved:
            raise DataError(
                f"this quickstudy draws version {VERSION} of its protocols, not {self.version}",
                fix="Use the draws that were saved with the results: --protocol FOLDER/draws.json",
            )
        if self.name == "full":
            object.__setattr__(self, "shots", ("all",))
        elif not self.shots or len(self.counts) < len(self.shots) or min(self.counts) < 1:
            raise DataError(f"shots = {list(self.shots)} is not possible", fix="Give whole numbers above 0.")
        else:
            object.__setattr__(self, "shots", tuple(sorted(set(self.counts))))
        numbers = ("draws", "limit", "n_way", "n_query")
        for name, value in ((name, getattr(self, name)) for name in numbers):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise DataError(f"{name} = {value} is not possible", fix="Give a whole number above 0.")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of shots that are numbers: none of `full`."""
        return tuple(k for k in self.shots if isinstance(k, int))

    @property
    def used(self) -> UsedProtocol:
        """The protocol as it stands in files: without the place of the file of draws."""
        limits = self.limit, self.n_way, self.n_query
        return UsedProtocol(self.name, self.version, self.shots, self.draws, self.seed, *limits)
