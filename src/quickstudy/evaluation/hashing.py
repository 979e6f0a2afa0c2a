"""Hashing: what stands for an example or for plain values in files, and is the same on every machine."""

import json
from collections.abc import Sequence
from hashlib import blake2b, sha256

from quickstudy.tasks.split import Example, readable


def hash_of(value: object) -> str:
    """Return the hash of plain values.

    >>> hash_of({"a": 1, "b": [2]}) == hash_of({"b": [2], "a": 1})
    True
    """
    return sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def content_hash(example: Example, label_names: Sequence[str]) -> str:
    """Return a hash of an example's texts and the name of its label (or its score).

    >>> content_hash(Example("a", label=1), ("x", "y")) == content_hash(Example("a", label=0), ("y",))
    True
    """
    plain = list(readable(example, label_names).values())
    return blake2b(json.dumps(plain).encode(), digest_size=10).hexdigest()
