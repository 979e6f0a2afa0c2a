"""Which parameters adapt, and that every cheap way to run the encoder for them is exact."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from conftest import FAMILIES, tiny_encoder, word_task
from quickstudy.errors import RecipeError
from quickstudy.inner.optimizer import SGD, Params, State
from quickstudy.methods.base import MetaLearner
from quickstudy.methods.catalog import make
from quickstudy.methods.gradient import GradientMetaLearner
from quickstudy.methods.inner_loop import InnerLoop
from quickstudy.models.batch import encode_episode
from quickstudy.models.cut import layer_stack
from quickstudy.models.encoder import Encoder
from quickstudy.models.parameter_filter import select
from quickstudy.models.partition import Partition
from quickstudy.models.target import Classes
from quickstudy.models.tokens import Sequences
from quickstudy.tasks.episode import EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.tasks.split import Example

_FAMILY_FILTERS = [
    (family, which)
    for family in FAMILIES
    for which in ("head", "layers:-1", "layers:-2", "bias", "all")
    if (family, which) != ("modernbert", "bias")  # it has none
]
# These compute their norm, or softmax and positions, in float32 whatever the model's dtype.
_ROUNDING = {"deberta": 1e-7, "modernbert": 1e-8}
TEXTS = ("good film", "the book was not very good and it is late", "fee", "red red blue [SEP] low bank loan")


@pytest.mark.parametrize(("family", "which"), _FAMILY_FILTERS)
def test_features_are_those_of_the_whole_encoder(family: str, which: str) -> None:
    encoder = tiny_encoder(family)
    partition, sequences = Partition(encoder, which), _sequences(encoder)
    with torch.no_grad():
        found = partition.features(partition.initial(), partition.prefix(sequences))
        torch.testing.assert_close(found, encoder(sequences), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("family", "which"), [pair for pair in _FAMILY_FILTERS if pair[1] != "head"])
def test_features_under_other_parameters_are_those_of_an_encoder_that_has_them(family: str, which: str) -> None:
    encoder = tiny_encoder(family, pair="separate")
    partition, sequences = Partition(encoder, which), _sequences(encoder, pair=True)
    before = copy.deepcopy(encoder.state_dict())
    moved = {
        name: p.detach() + 0.1 * torch.cos(torch.arange(p.numel())).view_as(p)
        for name, p in partition.initial().items()
    }
    other = Encoder(copy.deepcopy(encoder.model), encoder.tokenizer, encoder.settings)
    other.model.load_state_dict(moved, strict=False)
    with torch.no_grad():
        found = partition.features(moved, partition.prefix(sequences))
        torch.testing.assert_close(found, other(sequences), rtol=0, atol=1e-6)
        assert (found - encoder(sequences)).abs().max() > 1e-2
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_cut_below_its_top_layer(family: str) -> None:
    encoder = tiny_encoder(family)
    partition = Partition(encoder, "layers:-1")
    assert partition.way.cut is not None
    ran = _layers_run(encoder, lambda: partition.prefix(_sequences(encoder)))
    assert ran == list(range(len(layer_stack(encoder.model)[1]) - 1))  # all but the top one, once each


@pytest.mark.parametrize("which", ["bias", "all"])
def test_there_is_no_cut_where_parameters_below_all_layers_adapt(which: str) -> None:
    assert Partition(tiny_encoder(), which).way.cut is None


def test_an_inner_step_runs_only_the_layers_that_adapt() -> None:
    encoder = tiny_encoder()
    for which, wanted in (("head", []), ("layers:-1", [1]), ("layers:-2", [0, 1]), ("all", [0, 1])):
        partition = Partition(encoder, which)
        prefix = partition.prefix(_sequences(encoder))
        assert _layers_run(encoder, lambda p=partition, x=prefix: p.features(p.initial(), x)) == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cut_changes_no_meta_gradient(family: str) -> None:
    encoder = tiny_encoder(family, torch.float64)
    learner = make("maml", encoder, {"adapts": "layers:-1", "inner_lr": 0.1, "head_lr": 1.0, "inner_steps": 2})
    with_cut = _meta_gradient(learner)
    assert learner.partition.way.cut is not None
    learner.partition.way = replace(learner.partition.way, cut=None)
    without = _meta_gradient(learner)
    assert with_cut.keys() == without.keys()
    stack, _ = layer_stack(encoder.model)
    atol = _ROUNDING.get(family, 1e-10)
    assert (
        with_cut[f"{stack}.0.{_first_weight(encoder, stack)}"].abs().max() > 1e-4
    )  # it reaches what lies below the cut
    for name, value in with_cut.items():
        torch.testing.assert_close(value, without[name], rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def test_the_cut_follows_the_encoder_when_its_weights_change() -> None:
    encoder = tiny_encoder()
    partition, sequences = Partition(encoder, "layers:-1"), _sequences(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(0.7)
        found = partition.features(partition.initial(), partition.prefix(sequences))
        torch.testing.assert_close(found, encoder(sequences), rtol=0, atol=1e-6)


TABLES = {
    "maml": {},
    "fomaml": {},
    "reptile": {},
    "proto-maml": {},
    "maml++": {},
    "imaml": {},
    "meta-sgd": {"rates": "layer"},
}


@pytest.mark.parametrize("method", TABLES)
def test_rows_in_use_change_no_meta_gradient(method: str) -> None:
    encoder = tiny_encoder(dtype=torch.float64)
    learner = make(method, encoder, {"adapts": "all", "inner_steps": 2, **TABLES[method]}).double()
    with_rows = _meta_gradient(learner)
    assert learner.partition.way.rows is not None
    learner.partition.way = replace(learner.partition.way, rows=None)
    without = _meta_gradient(learner)
    assert without["embeddings.word_embeddings.weight"].abs().max() > 1e-4
    for name, value in with_rows.items():
        torch.testing.assert_close(
            value, without[name], rtol=1e-10, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_adapted_by_rows_is_one_adapted_whole(family: str) -> None:
    encoder = tiny_encoder(family, torch.float64)
    support = encode_episode(encoder, EpisodeSampler([word_task()], EpisodeSpec(2, 4, 1), seed=0)[0]).support
    learner = make("finetune", encoder, {"adapts": "all"})  # Adam: moments of rows that are not in use stay zero
    by_rows = learner.adapt(support, Classes(("a", "b"))).params
    name = learner.partition.way.rows.name
    learner.partition.way = replace(learner.partition.way, rows=None)
    whole = learner.adapt(support, Classes(("a", "b"))).params
    table = encoder.model.get_parameter(name)
    moved = {i for i in range(len(table)) if not torch.equal(by_rows[name][i], table[i])}
    used = {token for ids in support.sequences.ids for token in ids}
    assert moved == used - {encoder.model.get_input_embeddings().padding_idx}
    torch.testing.assert_close(by_rows, whole, rtol=0, atol=1e-6)


def test_an_inner_step_sees_only_the_rows_in_use() -> None:
    encoder = tiny_encoder()
    partition, sequences = Partition(encoder, "all"), _sequences(encoder)
    tokens = partition.tokens_in_use(sequences)
    theta = partition.initial(tokens)
    assert (
        len(theta["embeddings.word_embeddings.weight"])
        == len(tokens)
        < len(encoder.model.get_input_embeddings().weight)
    )


@pytest.mark.parametrize("change", ["bounded norm", "another class", "shared", "not adapting"])
def test_a_table_that_is_more_than_its_rows_is_adapted_whole(change: str) -> None:
    encoder = tiny_encoder()
    table = encoder.model.get_input_embeddings()
    if change == "bounded norm":
        table.max_norm = 1.0
    elif change == "another class":
        table.__class__ = type("Scaled", (nn.Embedding,), {})
    elif change == "shared":
        encoder.model.decoder = nn.Linear(16, 64, bias=False)
        encoder.model.decoder.weight = table.weight
    assert Partition(encoder, "bias" if change == "not adapting" else "all").tokens_in_use(_sequences(encoder)) is None


def test_a_model_that_asks_its_table_for_more_is_run_whole() -> None:
    encoder = tiny_encoder()
    encoder.model.register_forward_pre_hook(lambda module, _: module.get_input_embeddings().num_embeddings and None)
    assert Partition(encoder, "all").tokens_in_use(_sequences(encoder)) is None


def test_a_run_that_was_broken_off_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    partition, sequences = Partition(encoder, "layers:-1"), _sequences(encoder)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(encoder.model.pooler, "forward", fail)
        with pytest.raises(torch.OutOfMemoryError):
            partition.prefix(sequences)
    with torch.no_grad():
        found = partition.features(partition.initial(), partition.prefix(sequences))
        torch.testing.assert_close(found, encoder(sequences), rtol=0, atol=1e-6)


def test_a_rule_that_moves_what_has_no_gradient_is_given_the_whole_table() -> None:
    encoder = tiny_encoder()
    learner = GradientMetaLearner(encoder, InnerLoop(inner_lr=0.1, head_lr=None, inner_steps=1), _Decay)
    support = encode_episode(encoder, EpisodeSampler([word_task()], EpisodeSpec(2, 2, 1), seed=0)[0]).support
    found = learner.adapt(support, Classes(("a", "b"))).params["embeddings.word_embeddings.weight"]
    table = encoder.model.get_input_embeddings().weight
    unused = sorted(set(range(len(table))) - {token for ids in support.sequences.ids for token in ids})
    torch.testing.assert_close(found[unused], 0.5 * table[unused])


class _Decay(SGD):
    """Gradient descent that also halves every entry."""

    skips_zero_gradients = False

    def update(self, grads: Params, state: State, params: Params, *, loss: Tensor) -> tuple[Params, State]:
        return super().update(grads, state, {name: 0.5 * p for name, p in params.items()}, loss=loss)


def test_a_model_that_goes_on_after_its_layers_is_run_whole() -> None:
    encoder = tiny_encoder()
    stack = encoder.model.encoder
    stack.register_forward_hook(
        lambda _module, _args, output: type(output)(last_hidden_state=output.last_hidden_state * 2)
    )
    partition, sequences = Partition(encoder, "layers:-1"), _sequences(encoder)
    assert partition.way.cut is None
    with torch.no_grad():
        found = partition.features(partition.initial(), partition.prefix(sequences))
        torch.testing.assert_close(found, encoder(sequences), rtol=0, atol=1e-6)
        torch.testing.assert_close(found, 2 * tiny_encoder()(sequences), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("head", set()),
        ("bias", {"embeddings.LayerNorm.bias", "encoder.layer.0.output.dense.bias", "pooler.dense.bias"}),
        ("layers:-1", {"encoder.layer.1.output.dense.weight", "encoder.layer.1.output.LayerNorm.bias"}),
        ("layers:-2", {"encoder.layer.0.output.dense.weight", "encoder.layer.1.output.LayerNorm.bias"}),
        ("all", {"embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.weight", "pooler.dense.bias"}),
    ],
)
def test_select_gives_the_parameters_a_filter_names(which: str, wanted: set[str]) -> None:
    model = tiny_encoder().model
    names = {name for name, _ in model.named_parameters()}
    found = select(model, which)
    prefix, suffix = {
        "head": ("nothing", ""),
        "bias": ("", "bias"),
        "layers:-1": ("encoder.layer.1.", ""),
        "layers:-2": ("encoder.layer.", ""),
        "all": ("", ""),
    }[which]
    assert wanted <= found == {name for name in names if name.startswith(prefix) and name.endswith(suffix)}


@pytest.mark.parametrize(
    ("which", "message"),
    [
        *(
            (
                which,
                f"there is no parameter filter {which!r}\n"
                "  Choose head, all, bias, layers:-m (the top m layers) or lora:r (corrections of rank r).",
            )
            for which in ("lora:0", "layers:1", "")
        ),
        ("layers:-3", "'layers:-3': the encoder has 2 layers\n  Choose 1 to 2."),
        ("layers:-0", "'layers:-0': the encoder has 2 layers\n  Choose 1 to 2."),
    ],
)
def test_a_filter_that_cannot_be_is_refused_with_the_way_out(which: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        Partition(tiny_encoder(), which)
    assert str(error.value) == message


def test_biases_of_an_encoder_without_any_are_refused_with_the_way_out() -> None:
    with pytest.raises(RecipeError, match=r"no biases\n  Use adapts = 'head', 'layers:-m' or 'all'"):
        Partition(tiny_encoder("modernbert"), "bias")


def test_a_model_without_layers_is_refused_with_the_way_out() -> None:
    with pytest.raises(RecipeError, match=r"no stack of layers\n  Use 'all'"):
        layer_stack(nn.Linear(2, 2))


def _sequences(encoder: Encoder, *, pair: bool = False) -> Sequences:
    seconds = reversed(TEXTS) if pair else [None] * len(TEXTS)
    return encoder.tokenize(Example(text, second) for text, second in zip(TEXTS, seconds, strict=True))


def _first_weight(encoder: Encoder, stack: str) -> str:
    prefix = f"{stack}.0."
    return next(
        name.removeprefix(prefix)
        for name, p in encoder.model.named_parameters()
        if name.startswith(prefix) and p.dim() == 2
    )


def _layers_run(encoder: Encoder, run: Callable[[], object]) -> list[int]:
    """The numbers of the layers that `run` runs, in order."""
    ran: list[int] = []
    layers = layer_stack(encoder.model)[1]
    hooks = [
        layer.register_forward_pre_hook(lambda _module, _args, i=i: ran.append(i)) for i, layer in enumerate(layers)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return ran


def _meta_gradient(learner: MetaLearner) -> Mapping[str, Tensor]:
    sampler = EpisodeSampler([word_task()], EpisodeSpec(2, 2, 2), seed=0)
    named = dict(learner.encoder.model.named_parameters())
    loss = learner.meta_loss([encode_episode(learner.encoder, sampler[i]) for i in range(2)]).loss
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))
