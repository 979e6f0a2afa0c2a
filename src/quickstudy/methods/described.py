"""described: classes that have a name and no example, beside classes that have examples.

The head has seen no text of such a class, so it ranks the class too low for nearly all texts. How much too low is
measured on the classes that have examples. Each of them in turn (the first eight, if there are more) loses its examples
and keeps its name. Then its own texts are scored:

    gap_n  = median over the texts of n of (best logit of the other classes that have examples - logit of n)
    bias   = 1/2 mean_n max(gap_n, 0)                                 added to each class without examples

With the whole gap, half of the texts of such a class would be found, and too many texts of other classes would be taken
for it. Half of the gap gave the best accuracy over all classes (dev/LOG.md).
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from quickstudy.models.head import Head, LinearHead
from quickstudy.models.support_rows import SupportRows

_MOST = 8  # classes that are left out in turn; each of them takes a head
_SHARE = 0.5


@torch.no_grad()
def raise_described(head: Head, make: Callable[[SupportRows], Head], examples: SupportRows, n_way: int) -> Head:
    """Return the head with a bias for the classes without examples, if there are any and the head is linear.

    Args:
        head: What `make` made of all examples.
        make: Makes a head of examples, and of the names that it knows.
        examples: The examples alone.
        n_way: How many classes there are, N.
    """
    counts = torch.nn.functional.one_hot(examples.labels, n_way).sum(0)
    seen = counts.nonzero().flatten()
    if len(seen) in (0, 1, n_way) or not isinstance(head, LinearHead):
        return head
    gaps = [_gap(make, examples, label, seen) for label in seen[:_MOST].tolist()]
    bias = _SHARE * torch.stack(gaps).clamp_min(0).mean()
    return replace(head, bias=torch.where(counts == 0, head.bias + bias, head.bias))


def _gap(make: Callable[[SupportRows], Head], examples: SupportRows, label: int, seen: torch.Tensor) -> torch.Tensor:
    """Return how far the texts of a label are from it, in the median, if its name is all that is known of it."""
    own = examples.labels == label
    rest = SupportRows(
        examples.features[~own], examples.labels[~own], None if examples.weights is None else examples.weights[~own]
    )
    logits = make(rest)(examples.features[own])
    return (logits[:, seen[seen != label]].amax(-1) - logits[:, label]).median()
