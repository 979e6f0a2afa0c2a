"""Full fine-tuning: all parameters on a large train set, with `transformers.Trainer`, from the same checkpoint.

The model is the encoder as it reads texts everywhere else (pooling, pairs) with a linear head, so what comes out is an
`AdaptedModel` like any other: saved, loaded and served in the same way.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.batch import encode_set
from quickstudy.models.encoder import Encoder
from quickstudy.models.head import LinearHead
from quickstudy.models.partition import Partition
from quickstudy.models.scale import Scale
from quickstudy.models.target import Target, make_target
from quickstudy.models.tokens import Sequences
from quickstudy.tasks.split import Example, Split
from quickstudy.tasks.task import Task


@dataclass(frozen=True, slots=True)
class FullSettings:
    """Settings of full fine-tuning.

    Attributes:
        epochs: Passes over the train split.
        lr: Peak rate, warmed up over the first tenth and then decayed to zero.
        batch_size: Examples per update.
        seed: Order of the examples.
    """

    epochs: float = 3.0
    lr: float = 5e-5
    batch_size: int = 32
    seed: int = 0


def finetune_task(
    encoder: Encoder, task: Task, settings: FullSettings, *, callbacks: Sequence[TrainerCallback] = ()
) -> AdaptedModel:
    """Fine-tune a copy of the encoder and a new head on a task's train split.

    Args:
        encoder: Where to start from; not changed.
        task: What to learn; its `train` split is read row by row, not loaded.
        settings: Epochs, rate, batch size, seed.
        callbacks: Told of the progress by `transformers.Trainer`.
    """
    own = Encoder(copy.deepcopy(encoder.model), encoder.tokenizer, encoder.settings)
    own.requires_grad_(True)
    split = task.train_split
    target = make_target(task.kind, task.label_names)
    scale = target.scale(torch.from_numpy(split.labels).float())
    torch.manual_seed(settings.seed)  # the Trainer seeds the global state too: its data order follows from it
    model = _Classifier(own, target, scale, task.pair)
    with TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            learning_rate=settings.lr,
            per_device_train_batch_size=settings.batch_size,
            warmup_steps=0.1,
            seed=settings.seed,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,  # token ids are padded later, and the labels are on the device already
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_Rows(split),
            data_collator=_Collator(own),
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)  # it prints the last log line whatever the Trainer is told
        trainer.train()
    head = scale.rescale(LinearHead(model.head.weight.detach(), model.head.bias.detach()))
    return AdaptedModel(Partition(own, "head"), {}, head, target, task.pair, "full fine-tuning")


class _Classifier(nn.Module):
    """Encoder and linear head, in the form that the Trainer wants."""

    def __init__(self, encoder: Encoder, target: Target, scale: Scale, pair: bool) -> None:
        super().__init__()
        self.encoder, self._target, self._scale = encoder, target, scale
        self.head = nn.Linear(encoder.feature_size(pair=pair), target.size)
        # Unit-length features and a new head would need many epochs at an encoder's rate: start it large.
        nn.init.normal_(self.head.weight, std=1.0)
        nn.init.zeros_(self.head.bias)

    def forward(self, sequences: Sequences, labels: Tensor) -> dict[str, Tensor]:
        scores = self.head(self.encoder(sequences))
        return {"loss": self._target.loss(scores, self._scale.standardise(labels)), "logits": scores}


class _Rows(torch.utils.data.Dataset[Example]):
    """A split as the Trainer wants it."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Example:
        return self._split[index]


class _Collator:
    """Tokenises a batch; padding is the encoder's own business."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __call__(self, examples: list[Example]) -> dict[str, Any]:
        encoded = encode_set(self._encoder, examples)
        return {"sequences": encoded.sequences, "labels": encoded.labels}
