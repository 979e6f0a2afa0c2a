"""FeatureCache: the vectors of texts that an encoder has run, so that it runs each text once.

Whoever makes a cache owns it, and passes it to every call that may use it. The owner makes sure that no parameter of
the encoder changes while it uses the cache; when the owner lets go of the cache, what it holds is forgotten. Calls
that need gradients take no vectors from a cache, because those have no graph.

Several threads may use one cache. If two of them ask for a new text at the same moment, both may run it.
"""

from collections.abc import Callable
from itertools import repeat
from threading import Lock

import torch
from torch import Tensor, nn

from quickstudy.models.tokens import Ids, Sequences

Key = tuple[Ids, Ids | None]


class FeatureCache:
    """Vectors by token ids.

    Args:
        encoder: The encoder that the vectors are of; no other may use the cache.

    >>> from quickstudy.tasks.split import Example
    >>> from quickstudy.testing import tiny_encoder
    >>> encoder = tiny_encoder()
    >>> cache = FeatureCache(encoder)
    >>> with torch.no_grad():
    ...     _ = encoder(encoder.tokenize([Example("a good film"), Example("late fee")]), cache=cache)
    ...     _ = encoder(encoder.tokenize([Example("late fee")]), cache=cache)  # nothing runs
    >>> len(cache)
    2
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder
        self._vectors: dict[Key, Tensor] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        """How many texts it knows."""
        return len(self._vectors)

    def complete(self, sequences: Sequences, encoder: nn.Module, run: Callable[[Sequences], Tensor]) -> Tensor:
        """Return one vector per sequence, (B, D), in order, and remember those that were new.

        Args:
            sequences: What is asked for.
            encoder: Who asks.
            run: Runs the sequences that are new, all at once.

        Raises:
            ValueError: The cache belongs to another encoder.
        """
        if encoder is not self.encoder:
            raise ValueError("this feature cache belongs to another encoder")
        keys = list(zip(sequences.ids, sequences.types or repeat(None), strict=False))
        with self._lock:
            new = [key for key in dict.fromkeys(keys) if key not in self._vectors]
        if new:
            ids, types = zip(*new, strict=True)
            vectors = run(Sequences(ids, types if sequences.types else None, pairs=False))
            with self._lock:
                for key, vector in zip(new, vectors, strict=True):
                    self._vectors.setdefault(key, vector)
        with self._lock:
            return torch.stack([self._vectors[key] for key in keys])


class FeatureCaches:
    """A cache for each of several encoders.

    Args:
        first: A cache that is there already.
    """

    def __init__(self, first: FeatureCache | None = None) -> None:
        self._caches = [first] if first else []

    def of(self, encoder: nn.Module) -> FeatureCache:
        """Return the cache of an encoder, the same one each time."""
        known = next((cache for cache in self._caches if cache.encoder is encoder), None)
        if known is None:
            self._caches.append(known := FeatureCache(encoder))
        return known
