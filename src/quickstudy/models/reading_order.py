"""Reading order: the orders in which an LSTM reads a support set, which has no order.

An LSTM depends on the order of its inputs, so it reads a support set several times and takes the mean. The orders
depend only on the number of examples, so the same support set is always read in the same orders.
"""

import torch
from torch import Tensor

ORDERS = 4  # how many times a support set is read


def reading_orders(examples: int, device: torch.device) -> Tensor:
    """Return the orders of so many examples, (ORDERS, B): the one in which they come, and random ones.

    >>> reading_orders(3, torch.device("cpu"))[0].tolist()
    [0, 1, 2]
    """
    random = (torch.randperm(examples, generator=torch.Generator().manual_seed(seed)) for seed in range(1, ORDERS))
    return torch.stack([torch.arange(examples), *random]).to(device)
