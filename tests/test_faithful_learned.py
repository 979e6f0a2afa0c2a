"""The learned family, the feature family and the baselines, each against its paper's equations, written again here."""

import torch
from torch import Tensor

from quickstudy.methods.generated_start import GeneratedStart
from quickstudy.models.target import make_target


def test_the_first_outer_steps_change_the_logits_of_a_generated_head_slowly() -> None:
    start, features = GeneratedStart({384}), torch.nn.functional.normalize(torch.randn(8, 384), dim=-1)
    target, labels = make_target("classification", ("a", "b")), torch.arange(8) % 2

    def logits() -> Tensor:
        return start.head(lambda: features, labels, target, features[0])(features)

    outer = torch.optim.Adam(start.parameters(), lr=0.01)
    for _ in range(10):
        outer.zero_grad()
        (-logits().std(1).mean()).backward()
        outer.step()
    assert logits().std(1).mean() < 3
