"""Table: the methods by name, and how one is made from the settings of a recipe.

    name              head starts at  what adapts  inner rule     order    reference
    maml              learned         all          SGD            second   Finn et al. 2017, arXiv:1703.03400
    fomaml            learned         all          SGD            first    Finn et al. 2017, arXiv:1703.03400
    reptile           learned         all          SGD            first    Nichol et al. 2018, arXiv:1803.02999
    anil              learned         head         SGD            second   Raghu et al. 2020, arXiv:1909.09157
    boil              learned         all but head SGD            second   Oh et al. 2021, arXiv:2008.08882
    meta-sgd          learned         all          learned rates  second   Li et al. 2017, arXiv:1707.09835
    maml++            learned         all          learned rates  both     Antoniou et al. 2019, arXiv:1810.09502
    imaml             learned         all          SGD            implicit Rajeswaran et al. 2019, arXiv:1909.04630
    maml-lora         learned         lora         SGD            second   Hu et al. 2022, arXiv:2106.09685
    proto-maml        prototypes      all          SGD            second   Triantafillou et al. 2020, arXiv:1903.03096
    leopard           generated       all          learned rates  first    Bansal et al. 2020, arXiv:1911.03863
    lstm-optimizer    learned         head         LSTM cell      first    Ravi and Larochelle 2017
    learned-optimizer zero            head         LSTM           first    Andrychowicz et al. 2016, arXiv:1606.04474
    lstm-controller   prototypes      branches     LSTM, no steps -        this project, after arXiv:1906.07697
    protonet          prototypes      -            -              -        Snell et al. 2017, arXiv:1703.05175
    matching          attention       -            -              -        Vinyals et al. 2016, arXiv:1606.04080
    r2d2              ridge           -            -              -        Bertinetto et al. 2019, arXiv:1805.08136
    metaoptnet        support vectors -            -              -        Lee et al. 2019, arXiv:1904.03758
    relation          network         -            -              -        Sung et al. 2018, arXiv:1711.06025
    in-context        set transformer -            -              -        Garnelo et al. 2018, arXiv:1807.01613
    lstm-reader       LSTM            -            -              -        Hochreiter et al. 2001; Santoro et al. 2016
    majority, nearest-neighbour       -            -              -        baselines
    linear-probe      -               head         L-BFGS         -        baseline
    multi-task        one per task    -            -              -        baseline that meta-trains
    finetune          zero            all          Adam           -        baseline

The table gives the defaults; what adapts, the rates and the steps are settings. A new method is a function in one of
the family modules beside this one, and a line here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from quickstudy.errors import RecipeError, did_you_mean
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import baseline_family, feature_family, gradient_family, learned_family
from quickstudy.methods.setting import Setting, arrange, read_settings
from quickstudy.models.encoder import Encoder
from quickstudy.seeding import derive_seed

METHODS: Mapping[str, Callable[..., MetaLearner]] = {
    "maml": gradient_family.maml,
    "fomaml": gradient_family.fomaml,
    "reptile": gradient_family.reptile,
    "anil": gradient_family.anil,
    "boil": gradient_family.boil,
    "meta-sgd": learned_family.meta_sgd,
    "maml++": learned_family.mamlpp,
    "imaml": gradient_family.imaml,
    "maml-lora": gradient_family.maml_lora,
    "proto-maml": gradient_family.proto_maml,
    "leopard": learned_family.leopard,
    "lstm-optimizer": learned_family.lstm_optimizer,
    "learned-optimizer": learned_family.learned_optimizer,
    "lstm-controller": learned_family.lstm_controller,
    "protonet": feature_family.protonet,
    "matching": feature_family.matching,
    "r2d2": feature_family.r2d2,
    "metaoptnet": feature_family.metaoptnet,
    "relation": feature_family.relation,
    "in-context": feature_family.in_context,
    "lstm-reader": feature_family.lstm_reader,
    "majority": baseline_family.majority,
    "nearest-neighbour": baseline_family.nearest_neighbour,
    "linear-probe": baseline_family.linear_probe,
    "finetune": baseline_family.finetune,
    "multi-task": baseline_family.multi_task,
}


def make(name: str, encoder: Encoder, settings: Mapping[str, Any] | None = None, *, seed: int = 0) -> MetaLearner:
    """Return a method by name.

    What a method starts with at random follows from the seed alone. A method that is made by its own function draws
    from PyTorch's global generator.

    Args:
        name: A name in `METHODS`.
        encoder: The encoder that it meta-trains and adapts.
        settings: Its settings, by their keys in a recipe.
        seed: Of what it starts with at random.

    Raises:
        RecipeError: The method is unknown, or does not have such a setting.

    >>> from quickstudy.testing import tiny_encoder
    >>> make("maml", tiny_encoder(), {"adapts": "layers:-1", "inner_steps": 2}).inner_steps
    2
    >>> first, again, other = (make("relation", tiny_encoder(), seed=seed).state_dict() for seed in (0, 0, 1))
    >>> name = "rule.net.project.16.weight"
    >>> torch.equal(first[name], again[name]), torch.equal(first[name], other[name])
    (True, False)
    """
    check_method(name)
    for key, value in (settings or {}).items():
        check_setting(name, key, value)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "initialisation"))
        return METHODS[name](encoder, **arrange(METHODS[name], settings or {}))


def check_method(name: str) -> None:
    """Raise `RecipeError` unless there is a method of that name."""
    if name not in METHODS:
        raise RecipeError(f"there is no method {name!r}", fix=did_you_mean(name, METHODS))


def settings_of(name: str) -> dict[str, Setting]:
    """Return the settings of a method, by their keys in a recipe."""
    return read_settings(METHODS[name])


def check_setting(name: str, key: str, value: Any) -> None:
    """Raise `RecipeError` unless a method has a setting `key` that can be `value`.

    >>> check_setting("maml", "inner_lr", "fast")
    Traceback (most recent call last):
    quickstudy.errors.RecipeError: inner_lr = 'fast': method 'maml' takes float here
    """
    settings = settings_of(name)
    if key not in settings:
        raise RecipeError(f"method {name!r} has no setting {key!r}", fix=did_you_mean(key, settings))
    settings[key].check(name, value)
