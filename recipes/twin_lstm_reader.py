"""The LSTM reader in one file: what `method = "lstm-reader"` computes, with torch and transformers only.

    h_t = LSTM([P f(x_t), y_{t-1}], h_{t-1}) over the support set, one more step with the query, answer = w h + b

The reader answers for one label at a time: y is 1 if an example has the label, and 0 otherwise. The answer is the mean
over four orders of the support set. It is added to -prior times the squared distance to the label's mean. A test checks
that `meta_loss` here and in the library agree to 1e-6.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

ORDERS = 4


class Reader(nn.Module):
    """The LSTM and its input and output layers."""

    def __init__(self, features, hidden=64, prior=10.0):
        super().__init__()
        self.project = nn.Linear(features, hidden)
        self.gates = nn.Linear(2 * hidden + 2, 4 * hidden)
        self.answer = nn.Linear(hidden, 1)
        self.prior = nn.Parameter(torch.tensor(prior))

    def step(self, text, told, state):
        """One step of the LSTM."""
        h, c = state
        i, f, g, o = self.gates(torch.cat([text, told, h])).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def forward(self, support, labels, query, n_way):
        """Scores (Q, N) of query features (Q, F), from support features (B, F) and their labels."""
        scores = []
        for label in range(n_way):
            mean = support[labels == label].mean(0)
            answers = []
            for seed in range(ORDERS):
                order = list(range(len(support)))
                if seed:
                    order = torch.randperm(len(support), generator=torch.Generator().manual_seed(seed)).tolist()
                zero = support.new_zeros(self.answer.in_features)
                state, told = (zero, zero), support.new_zeros(2)
                for i in order:
                    state = self.step(self.project(support[i]), told, state)
                    told = support.new_tensor([float(labels[i] == label), 1.0])
                ends = [self.step(self.project(f), told, state)[0] for f in query]
                answers.append(self.answer(torch.stack(ends)).squeeze(-1))
            prior = -self.prior * (query - mean).square().sum(-1)
            scores.append(prior + torch.stack(answers).mean(0))
        return torch.stack(scores, dim=-1)


def features(model, tokenizer, texts):
    """Mean of the token states."""
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def meta_loss(model, tokenizer, reader, support, query, n_way):
    """Query loss, differentiable in the model and the reader; each set is (texts, labels)."""
    f_support, f_query = features(model, tokenizer, support[0]), features(model, tokenizer, query[0])
    return cross_entropy(reader(f_support, torch.tensor(support[1]), f_query, n_way), torch.tensor(query[1]))


def train(model, tokenizer, episodes, *, lr=3e-5, reader_lr=1e-2):
    """Meta-train on (support, query, n_way) triples, one per outer step; returns the reader."""
    reader = Reader(model.config.hidden_size)
    groups = [{"params": model.parameters(), "lr": lr}, {"params": reader.parameters(), "lr": reader_lr}]
    optimizer = torch.optim.AdamW(groups)
    for step, (support, query, n_way) in enumerate(episodes):
        loss = meta_loss(model, tokenizer, reader, support, query, n_way)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: meta-loss {loss.item():.4f}", flush=True)
    return reader
