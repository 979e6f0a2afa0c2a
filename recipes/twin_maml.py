"""MAML in one file, without quickstudy: what `method = "maml"` computes, for reading. torch and transformers only.

    python recipes/twin_maml.py FOLDER_OR_HUB_ID train_a.csv train_b.csv ...

The CSV files have the columns text and label. A test checks that `meta_loss` here and in the library agree to 1e-6, and
that their gradients are the same. The library adds what makes it fast and safe: texts are tokenised once, layers that
do not adapt run once per episode, and batches hold texts of similar length. It also scales the features of sentence
encoders to unit length. This file does not, so give it a plain encoder.
"""

import csv
import random
import sys
from pathlib import Path

import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoTokenizer

INNER_LR, HEAD_LR, INNER_STEPS = 0.05, 3.0, 3
POSITIONS = 20  # labels for which the head has a row that is meta-learned


def features(model, params, tokens):
    """Mean of the token states, under parameters `params` by name; all others are those of the model."""
    states = functional_call(model, params, kwargs=dict(tokens)).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def new_head(model):
    """The start of the head, as that of a new linear layer, times sqrt(F): so an outer rate of 0.01 suits it."""
    return torch.nn.Parameter(torch.empty(POSITIONS, model.config.hidden_size + 1).uniform_(-1, 1))


def meta_loss(
    model, tokenizer, head, support, query, n_way, *, inner_lr=INNER_LR, head_lr=HEAD_LR, inner_steps=INNER_STEPS
):
    """Query loss after adapting to the support set, differentiable in the parameters; each set is (texts, labels)."""
    tokens = [tokenizer(texts, padding=True, return_tensors="pt") for texts, _ in (support, query)]
    labels = [torch.tensor(positions) for _, positions in (support, query)]
    phi = dict(model.named_parameters())
    rows = head[:n_way] / model.config.hidden_size**0.5
    weight, bias = rows[:, :-1], rows[:, -1]

    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        for _ in range(inner_steps):
            loss = cross_entropy(features(model, phi, tokens[0]) @ weight.T + bias, labels[0])
            values = [*phi.values(), weight, bias]
            grads = torch.autograd.grad(loss, values, create_graph=True, allow_unused=True, materialize_grads=True)
            *body, g_weight, g_bias = grads
            phi = {name: p - inner_lr * g for (name, p), g in zip(phi.items(), body, strict=True)}
            weight, bias = weight - head_lr * g_weight, bias - head_lr * g_bias
    return cross_entropy(features(model, phi, tokens[1]) @ weight.T + bias, labels[1])


def read(path):
    """Texts by label."""
    texts = {}
    with Path(path).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            texts.setdefault(row["label"], []).append(row["text"])
    return texts


def episode(task, rng, *, n_way=2, k_shot=3, n_query=3):
    """A support and a query set of one task, each (texts, labels)."""
    support, query = ([], []), ([], [])
    for label, name in enumerate(rng.sample(sorted(task), n_way)):
        texts = rng.sample(task[name], k_shot + n_query)
        for examples, drawn in ((support, texts[:k_shot]), (query, texts[k_shot:])):
            examples[0].extend(drawn)
            examples[1].extend([label] * len(drawn))
    return support, query


def main(name, *paths, outer_steps=100, meta_batch_size=4):
    """Meta-train and save the encoder."""
    model, tokenizer = AutoModel.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)
    tasks, rng = [read(path) for path in paths], random.Random(0)
    head = new_head(model)
    groups = [{"params": model.parameters()}, {"params": [head], "lr": 1e-2, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, 3e-5)
    for step in range(outer_steps):
        total = 0.0
        for _ in range(meta_batch_size):
            support, query = episode(rng.choice(tasks), rng)
            loss = meta_loss(model, tokenizer, head, support, query, 2) / meta_batch_size
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), head], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: meta-loss {total:.4f}", flush=True)
    model.save_pretrained("twin")
    tokenizer.save_pretrained("twin")


if __name__ == "__main__":
    main(*sys.argv[1:])
