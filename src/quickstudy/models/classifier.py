"""Sequence classifier: an adapted encoder and head as the architecture's own `AutoModelForSequenceClassification`.

Possible exactly where quickstudy's feature is the input of that class's last layer. With `pooling = "pooler"` that is
so for BERT (classifier(pooler(h))) and RoBERTa (out_proj(tanh(dense(h_0))), the pooler under another name). What was
built is run against the original before it is kept, so an architecture that looks alike but is not never passes.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead

_TOLERANCE = 1e-5


def save_sequence_classifier(
    encoder: Encoder, head: LinearHead, label_names: tuple[str, ...], pair: bool, folder: Path
) -> bool:
    """Write a standard sequence classifier if one gives the same logits; return whether it was written."""
    settings = encoder.settings
    if settings.pooling != "pooler" or settings.normalize or (pair and settings.pair == "separate"):
        return False
    config = encoder.model.config.__class__.from_dict(encoder.model.config.to_dict())
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: i for i, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    try:
        model: Any = (
            AutoModelForSequenceClassification.from_config(config, trust_remote_code=False).eval().to(encoder.device)
        )
    except ValueError:  # the architecture has no such class
        return False
    model.base_model.load_state_dict(encoder.model.state_dict(), strict=False)
    last = model.classifier
    if not isinstance(last, nn.Linear):
        if not hasattr(last, "out_proj") or not hasattr(encoder.model, "pooler"):
            return False
        last.dense.load_state_dict(encoder.model.pooler.dense.state_dict())
        last = last.out_proj
    with torch.no_grad():
        last.weight.copy_(head.weight)
        last.bias.copy_(head.bias)
        texts = ["a short text", "another, somewhat longer text"]
        probe = encoder.tokenizer(texts, padding=True, return_tensors="pt").to(encoder.device)
        states = encoder.model(**probe).last_hidden_state
        wanted = head(encoder.pool(states, probe["attention_mask"]))
        if (model(**probe).logits - wanted).abs().max() > _TOLERANCE:
            return False
    encoder.save(folder)
    (folder / "model.safetensors").unlink()
    # RoBERTa's classifier has no pooler: without the encoder's, quickstudy would read the folder with a random one.
    whole = {f"{model.base_model_prefix}.{name}": value for name, value in encoder.model.state_dict().items()}
    model.save_pretrained(folder, state_dict=whole | model.state_dict())
    return True
