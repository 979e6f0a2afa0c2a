"""Transformers folder: an adapted model as a standard sequence classifier.

    pooling    of BERT and RoBERTa          what carries it
    mean       with or without unit length  the architecture's own classifier, with one more layer (see `pooling_layer`)
    pooler     without unit length          `encoder/` of the model folder is it already (see `models.classifier`)

`pipeline("text-classification")` opens it, and no code of its own belongs to it. The head must be linear, and texts
single or read jointly. What is written is compared with the model, so an architecture that only looks alike is
refused. The weights must stay in float32.
"""

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from quickstudy.errors import RunError
from quickstudy.export.parity import Parity
from quickstudy.export.pooling_layer import (
    Readout,
    Weights,
    Widths,
    pooling_layer,
    read_linear,
    read_unit_length,
    widen,
)
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.card import standard_card
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.storage.files import count_bytes, new_folder, write_text

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
_TOLERANCE = 1e-5
_PROBE = ("a short text", "another text, which is somewhat longer than the first", "a third: 1, 2, 3?")


def export_transformers(model: AdaptedModel, out: Path) -> Parity:
    """Write a model as a standard sequence classifier to a new folder.

    Raises:
        RunError: There is no standard architecture that gives its logits, with the reason; or the folder exists.
    """
    head, encoder = _check(model), model.merged_encoder()
    standard = _pooled_classifier(encoder, head)
    _label(standard.config, model)
    parity = _compare(standard, encoder, head)
    with new_folder(out, size=count_bytes(dict(standard.named_parameters()))) as folder:
        standard.save_pretrained(folder)
        encoder.tokenizer.save_pretrained(folder)
        write_text(folder / "README.md", standard_card(model, max_length=encoder.settings.max_length))
    return parity


def _check(model: AdaptedModel) -> LinearHead:
    """Return the model's head if a standard classifier can carry the model."""
    settings, kind = model.partition.encoder.settings, model.partition.encoder.model.config.model_type
    if not isinstance(model.head, LinearHead):
        raise _refusal(f"the head of {model.method} is not linear")
    if model.pair and settings.pair == "separate":
        raise _refusal("the two texts of a pair pass the encoder separately, and a standard classifier reads one text")
    if settings.pooling != "mean":
        raise _refusal(f"only mean pooling is known, and this is {settings.pooling!r}")
    if kind not in FAMILIES:
        raise _refusal(f"a pooling layer is known for {', '.join(FAMILIES)}, and this is a {kind}")
    return model.head


def _refusal(why: str) -> RunError:
    fix = "docs/classifier.md says which models open where. ONNX carries most others: quickstudy export --to onnx"
    return RunError(f"no standard classifier of transformers gives the logits of this model: {why}", fix=fix)


def _pooled_classifier(encoder: Encoder, head: LinearHead) -> PreTrainedModel:
    """Return a classifier that pools by itself: the encoder, one layer more, and the head."""
    config, model = encoder.model.config, encoder.model
    widths = Widths(config.hidden_size, config.num_attention_heads)
    norm = model.encoder.layer[-1].output.LayerNorm
    longest = float(norm.weight.detach().abs().max()) * config.hidden_size**0.5 + float(norm.bias.detach().norm())
    unit = encoder.settings.normalize
    readout = read_unit_length(head.weight, widths) if unit else read_linear(head.weight, longest, widths)
    if readout is None:
        raise _refusal(f"{len(head.weight)} labels are too many for {config.hidden_size} features without unit length")
    standard = AutoModelForSequenceClassification.from_config(_wide_config(config, widths, len(head.weight)))
    layers = config.num_hidden_layers
    weights = widen(model.state_dict(), widths, layers)
    last = f"encoder.layer.{layers}."
    weights |= pooling_layer(last, widths, config.intermediate_size + 4)
    weights[f"{last}attention.output.dense.weight"], weights[f"{last}attention.output.dense.bias"] = readout.mix
    named = {f"{standard.base_model_prefix}.{name}": tensor for name, tensor in weights.items()}
    named |= _named_readout(standard, readout, head)
    missing = standard.load_state_dict({n: t.float() for n, t in named.items()}, strict=False).missing_keys
    if any("position_ids" not in name and "token_type_ids" not in name for name in missing):
        raise _refusal(f"its classifier has weights that the encoder does not know ({missing[0]})")
    return standard.eval()


def _wide_config(config: PretrainedConfig, widths: Widths, labels: int) -> PretrainedConfig:
    values = config.to_dict() | {
        "hidden_size": widths.wide,
        "num_hidden_layers": config.num_hidden_layers + 1,
        "intermediate_size": config.intermediate_size + 4,
        "layer_norm_eps": config.layer_norm_eps * widths.hidden / widths.wide,
        "dtype": "float32",
    }
    wide = type(config).from_dict(values)
    wide.num_labels = labels
    return wide


def _named_readout(standard: PreTrainedModel, readout: Readout, head: LinearHead) -> Weights:
    """Return the weights of the classifier by their names, which differ between BERT and RoBERTa."""
    prefix = standard.base_model_prefix
    names = dict(standard.named_parameters())
    first, last = ("classifier.dense", "classifier.out_proj")
    if f"{first}.weight" not in names:
        first, last = f"{prefix}.pooler.dense", "classifier"
    zero = readout.pool.new_zeros(len(readout.pool))
    return {
        f"{first}.weight": readout.pool,
        f"{first}.bias": zero,
        f"{last}.weight": readout.classify,
        f"{last}.bias": head.bias.detach().double().cpu(),
    }


def _label(config: PretrainedConfig, model: AdaptedModel) -> None:
    names = model.label_names or ("score",)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    config.problem_type = "single_label_classification" if model.label_names else "regression"


@torch.no_grad()
def _compare(standard: PreTrainedModel, encoder: Encoder, head: LinearHead) -> Parity:
    """Return the largest difference between the logits; refuse one above the tolerance."""
    probe = encoder.tokenizer(list(_PROBE), padding=True, return_tensors="pt").to(encoder.device)
    states = encoder.model(**probe).last_hidden_state
    wanted = head(encoder.pool(states, probe["attention_mask"])).cpu()
    parity = Parity.between(standard.eval().cpu()(**probe.to("cpu")).logits, wanted, _TOLERANCE)
    if not parity.holds:
        raise _refusal(f"what was tried differs by {parity.difference:.2g}")
    return parity
