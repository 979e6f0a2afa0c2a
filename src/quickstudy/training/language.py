"""Language: masked-language modelling in the outer loop, in a share of its steps.

    loss = mean over masked tokens of -log p(token | the rest of the passage),        perplexity = exp(loss)

Steps of it and of meta-episodes take turns: with a share of 0.75, three of four steps are of it. The passages of a step
and what is masked in them follow from (seed, step) alone, so a resumed training sees the ones that it would have seen.
Masked are 15 % of the tokens: of these 80 % become the mask, 10 % a random token, and 10 % stay (Devlin et al. 2019,
arXiv:1810.04805). The perplexity is that of fixed passages with fixed masks, of documents that are not trained on. It
says how well masked tokens are known, and is not to be compared with that of models that read from left to right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import DataCollatorForLanguageModeling

from quickstudy.models.encoder import Encoder
from quickstudy.models.language_head import LanguageHead
from quickstudy.seeding import derive_seed, rng
from quickstudy.training.meta_batch import attention

_CHARACTERS_PER_TOKEN = 6  # a passage has enough of them to fill a sequence in nearly all cases


class Texts(Protocol):
    """Where passages come from."""

    def draw(self, random: np.random.Generator, characters: int) -> str:
        """Return a passage of about so many characters."""
        ...


@dataclass(frozen=True, slots=True)
class LanguageSettings:
    """Settings of masked-language modelling.

    Attributes:
        share: Which share of the outer steps it takes; above 0, at most 1.
        batch_size: Passages of a step, over all processes.
        masked: Which share of the tokens is masked.
        max_length: Tokens of a passage.
        held_out: Passages that the perplexity is measured on.
        head_lr: Peak learning rate of the head, above 0; None: that of the encoder. The head begins at random, and an
            encoder that is there already needs a low rate, at which the head would learn little.
    """

    share: float = 0.5
    batch_size: int = 32
    masked: float = 0.15
    max_length: int = 128
    held_out: int = 256
    head_lr: float | None = None


class LanguageModel:
    """Masked-language modelling on the encoder of a learner.

    Args:
        encoder: The encoder; its parameters are trained, and those of the head.
        texts: Passages to train on.
        held_out: Passages for the perplexity.
        settings: How much of it, and how.
        seed: Everything that is drawn follows from it.

    Attributes:
        head: What is trained beside the encoder.
    """

    def __init__(
        self, encoder: Encoder, texts: Texts, held_out: Texts, settings: LanguageSettings, *, seed: int
    ) -> None:
        self.encoder, self.texts, self.held_out, self.settings, self.seed = encoder, texts, held_out, settings, seed
        self.head = LanguageHead(encoder, seed=derive_seed(seed, "language head"))

    def is_due(self, step: int) -> bool:
        """Return whether a step, from 0, is of masked-language modelling."""
        share = self.settings.share
        return math.floor((step + 1) * share) > math.floor(step * share)

    def add(self, totals: Tensor, step: int, accelerator: Accelerator, scale: float) -> None:
        """Take the gradient of a step for the passages of this process, and leave it in `.grad`.

        Args:
            totals: (3,), to which are added: the loss times `scale`, the masked tokens that were known, and all of
                them. Over all processes, their sum is that of the whole batch.
            step: Number of the step.
            accelerator: Device, precision and processes.
            scale: Factor of the loss in the totals.
        """
        rows, mine = self._rows(step, accelerator)
        count = _count_masked(rows)
        if not mine or not count:
            return
        with accelerator.autocast(), attention(accelerator):
            loss, right, scored = self._loss(mine)
        accelerator.backward(loss / count)
        totals += torch.tensor([float(loss.detach()) / count * scale, right, scored], device=totals.device)

    def sizes(self, step: int, accelerator: Accelerator) -> tuple[list[int], int]:
        """Return how many tokens each passage of this process has in a step, and how many of all these are masked."""
        _, mine = self._rows(step, accelerator)
        return [len(row["input_ids"]) for row in mine], _count_masked(mine)

    def perplexity(self, accelerator: Accelerator) -> float:
        """Return the perplexity on held-out text."""
        rows, size = (
            self._batch(self.held_out, self.settings.held_out, "held-out passages", 0),
            self.settings.batch_size,
        )
        total, count = 0.0, 0
        with torch.no_grad(), accelerator.autocast():
            for start in range(0, len(rows), size):
                loss, _, scored = self._loss(rows[start : start + size])
                total, count = total + float(loss), count + scored
        return math.exp(min(total / max(1, count), 50.0))

    def _rows(self, step: int, accelerator: Accelerator) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        """Return the passages of a step, and those of this process among them."""
        rows = self._batch(self.texts, self.settings.batch_size, "passages", step)
        return rows, rows[accelerator.process_index :: accelerator.num_processes]

    def _batch(self, texts: Texts, size: int, purpose: str, step: int) -> list[dict[str, Tensor]]:
        """Return passages in tokens with some of them masked, each (T,); the label of a token that is not is -100."""
        length, tokenizer = self.settings.max_length, self.encoder.tokenizer
        drawn = [texts.draw(rng(self.seed, purpose, step, row), _CHARACTERS_PER_TOKEN * length) for row in range(size)]
        seed = derive_seed(self.seed, f"masks of {purpose}", step)
        mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=self.settings.masked, seed=seed)
        mask.generator = mask.get_generator(seed)  # it makes none in a process that `multiprocessing` has started
        tokens = tokenizer(drawn, truncation=True, max_length=length, return_special_tokens_mask=True)
        batch = mask([{name: values[row] for name, values in tokens.items()} for row in range(size)])
        sizes = batch["attention_mask"].sum(-1).tolist()
        return [{name: values[row, : sizes[row]] for name, values in batch.items()} for row in range(size)]

    def _loss(self, rows: Sequence[dict[str, Tensor]]) -> tuple[Tensor, int, int]:
        """Return the sum of the losses of masked tokens, how many of them were known, and how many there are."""
        device, pad = self.encoder.device, self.encoder.pad_id
        fill = {"input_ids": pad, "labels": -100}
        inputs = {
            name: nn.utils.rnn.pad_sequence([row[name] for row in rows], True, fill.get(name, 0)).to(device)
            for name in rows[0]
        }
        labels = inputs.pop("labels")
        states = self.encoder.model(**inputs).last_hidden_state
        asked = labels >= 0
        logits = self.head(states[asked], self.encoder.model.get_input_embeddings().weight)
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        loss = nn.functional.cross_entropy(logits, labels[asked], reduction="sum")
        return loss, int((logits.argmax(-1) == labels[asked]).sum()), int(asked.sum())


def _count_masked(rows: Sequence[dict[str, Tensor]]) -> int:
    return sum(int((row["labels"] >= 0).sum()) for row in rows)
