"""Convergence: how well the two problems were solved that the meta-gradient of iMAML rests on.

    inner   ||∇ L_support(φ) + λ (φ - θ)|| / ||λ (φ - θ)||          0 where φ is the minimum
    solve   ||∇ L_query - (∇² L_support + λ I) u|| / ||∇ L_query||    0 where u is the solution

Rajeswaran et al. 2019, arXiv:1909.04630, bound the error of the meta-gradient by these two.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

_POOR = 0.2  # residuals up to this were measured to leave a cosine of 0.99 to the exact meta-gradient


@dataclass(frozen=True, slots=True)
class Convergence:
    """How far iMAML is from the solutions that its gradient presumes; both are 0 where it is exact.

    Attributes:
        inner: ||∇ L_support + λ (φ - θ)|| / ||λ (φ - θ)|| after the inner loop. The two terms cancel at the minimum.
        solve: Norm of what conjugate gradients leave over, as a fraction of ||∇ L_query||. 1 means no positive
            curvature, where the gradient is the first-order one.
    """

    inner: float
    solve: float

    @property
    def is_poor(self) -> bool:
        """Whether the meta-gradient may point elsewhere than the exact one."""
        return not (self.inner <= _POOR and self.solve <= _POOR)


class PoorConvergenceWarning(UserWarning):
    """iMAML's inner problem was not solved, so that its meta-gradient is not the exact one."""


def find_worst(several: Iterable[Convergence | None]) -> Convergence | None:
    """Return the largest of both figures; None if there are none.

    >>> find_worst([None, Convergence(0.1, 0.5), Convergence(0.2, 0.3)])
    Convergence(inner=0.2, solve=0.5)
    """
    known = [each for each in several if each]
    return Convergence(max(c.inner for c in known), max(c.solve for c in known)) if known else None


def warn_of(convergence: Convergence) -> None:
    """Warn that the convergence is poor, and say what helps."""
    warnings.warn(
        f"iMAML did not solve its inner problem (relative gradient {convergence.inner:.2g}, conjugate gradients left "
        f"{convergence.solve:.2g}; up to {_POOR} is good), so its meta-gradient is not the exact one. Use a larger "
        "method.strength, more method.inner_steps or more method.cg_steps.",
        PoorConvergenceWarning,
        stacklevel=2,
    )
