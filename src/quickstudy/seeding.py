"""Seeds: every random choice is a pure function of (seed, purpose, indices).

    derive_seed(seed, purpose, i, j, ...) = the first 8 bytes of BLAKE2b("seed|purpose|i|j|...")

Nothing depends on call order, process rank or a global random state, so an episode, a draw or an initialisation can be
made again alone, on any machine, in any order. BLAKE2b: RFC 7693.
"""

from hashlib import blake2b

import numpy as np


def derive_seed(seed: int, purpose: str, *indices: int | str) -> int:
    """Return a seed in [0, 2**63) for one purpose and place.

    >>> derive_seed(0, "episode", 3) == derive_seed(0, "episode", 3)
    True
    >>> derive_seed(0, "episode", 3) == derive_seed(0, "episode", 4)
    False
    """
    key = "|".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def rng(seed: int, purpose: str, *indices: int | str) -> np.random.Generator:
    """Return a numpy generator for one purpose and place."""
    return np.random.default_rng(derive_seed(seed, purpose, *indices))
