"""Sequence classifier: an adapted encoder and head as the architecture's own `AutoModelForSequenceClassification`.

This is possible only where the feature of quickstudy is the input of that class's last layer. With `pooling = "pooler"`
that is so for BERT, classifier(pooler(h)), and for RoBERTa, out_proj(tanh(dense(h_0))), where the pooler has another
name. The result is compared with the original before it is kept, so an architecture that only looks alike is refused.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.models.weights import without_bars

_TOLERANCE = 1e-5


def save_sequence_classifier(
    encoder: Encoder, head: LinearHead, label_names: tuple[str, ...], pair: bool, folder: Path
) -> bool:
    """Write a standard sequence classifier if one gives the same logits; return whether it was written."""
    settings = encoder.settings
    if settings.pooling != "pooler" or settings.normalize or (pair and settings.pair == "separate"):
        return False
    model = _build(encoder, label_names)
    if model is None:
        return False
    last = _last_layer(model, encoder)
    if last is None:
        return False
    with torch.no_grad():
        last.weight.copy_(head.weight)
        last.bias.copy_(head.bias)
    if not _is_equal(model, encoder, head):
        return False
    encoder.save(folder)
    (folder / "model.safetensors").unlink()
    # The classifier of RoBERTa has no pooler. The encoder's pooler is added, because quickstudy reads it from the
    # folder.
    whole = {f"{model.base_model_prefix}.{name}": value for name, value in encoder.model.state_dict().items()}
    with without_bars():
        model.save_pretrained(folder, state_dict=whole | model.state_dict())
    return True


def _build(encoder: Encoder, label_names: tuple[str, ...]) -> PreTrainedModel | None:
    """Return the architecture's classifier with the encoder's weights; None if the architecture has none."""
    config = encoder.model.config.__class__.from_dict(encoder.model.config.to_dict())
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: i for i, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    try:
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except ValueError:  # there is no such class
        return None
    model.eval().to(encoder.device)
    model.base_model.load_state_dict(encoder.model.state_dict(), strict=False)
    return model


def _last_layer(model: PreTrainedModel, encoder: Encoder) -> nn.Linear | None:
    """Return the layer that takes the features; layers of the classifier before it get the pooler's weights."""
    classifier = dict(model.named_children()).get("classifier")
    if classifier is None or isinstance(classifier, nn.Linear):
        return classifier
    layers, encoder_layers = dict(classifier.named_children()), dict(encoder.model.named_children())
    last, dense = layers.get("out_proj"), layers.get("dense")
    if not isinstance(last, nn.Linear) or not isinstance(dense, nn.Linear) or "pooler" not in encoder_layers:
        return None
    dense.load_state_dict(encoder_layers["pooler"].get_submodule("dense").state_dict())
    return last


@torch.no_grad()
def _is_equal(model: PreTrainedModel, encoder: Encoder, head: LinearHead) -> bool:
    texts = ["a short text", "another, somewhat longer text"]
    probe = encoder.tokenizer(texts, padding=True, return_tensors="pt").to(encoder.device)
    states = encoder.model(**probe).last_hidden_state
    wanted = head(encoder.pool(states, probe["attention_mask"]))
    return bool((model(**probe).logits - wanted).abs().max() <= _TOLERANCE)
