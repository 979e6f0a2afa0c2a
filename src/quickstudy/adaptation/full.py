"""Full fine-tuning: all parameters on a large train set, with `transformers.Trainer`, from the meta-learned encoder.

The model is the encoder, which reads texts as everywhere else (pooling, pairs), with a linear head. So the result is
an `AdaptedModel` like any other. It is saved, loaded and served in the same way.
"""

from collections.abc import Sequence
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from quickstudy.full_settings import FullSettings
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


def finetune_task(
    encoder: Encoder, task: Task, settings: FullSettings, *, callbacks: Sequence[TrainerCallback] = ()
) -> AdaptedModel:
    """Fine-tune a copy of the encoder and a new head on a task's train split.

    Args:
        encoder: Where to start from; it is not changed.
        task: What to learn; its `train` split is read row by row, not loaded as a whole.
        settings: Epochs, rate, batch size and seed.
        callbacks: Told of the progress by `transformers.Trainer`.
    """
    tuned = encoder.copy()
    tuned.requires_grad_(True)
    target = make_target(task.kind, task.label_names)
    scale = target.scale(torch.from_numpy(task.train_split.labels).float())
    torch.manual_seed(settings.seed)  # the Trainer seeds the global state too: its data order follows from it
    model = _Classifier(tuned, target, scale, task.pair)
    _train(model, task.train_split, settings, callbacks)
    head = scale.rescale(LinearHead(model.head.weight.detach(), model.head.bias.detach()))
    return AdaptedModel(Partition(tuned, "head"), {}, head, target, task.pair, "full fine-tuning")


def _train(model: "_Classifier", split: Split, settings: FullSettings, callbacks: Sequence[TrainerCallback]) -> None:
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
            data_collator=_Collator(model.encoder),
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)  # it prints the last log line, whatever the Trainer is told
        trainer.train()


class _Classifier(nn.Module):
    """Encoder and linear head, in the form that the Trainer needs."""

    def __init__(self, encoder: Encoder, target: Target, scale: Scale, pair: bool) -> None:
        super().__init__()
        self.encoder, self._target, self._scale = encoder, target, scale
        self.head = nn.Linear(encoder.feature_size(pair=pair), target.size)
        # At an encoder's learning rate, a small head on features of unit length needs many epochs: it starts large.
        nn.init.normal_(self.head.weight, std=1.0)
        nn.init.zeros_(self.head.bias)

    def forward(self, sequences: Sequences, labels: Tensor) -> dict[str, Tensor]:
        scores = self.head(self.encoder(sequences))
        return {"loss": self._target.loss(scores, self._scale.standardise(labels)), "logits": scores}


class _Rows(torch.utils.data.Dataset[Example]):
    """A split in the form that the Trainer needs."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Example:
        return self._split[index]


class _Collator:
    """Tokenises a batch. The encoder pads it later."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __call__(self, examples: list[Example]) -> dict[str, Sequences | Tensor]:
        encoded = encode_set(self._encoder, examples)
        return {"sequences": encoded.sequences, "labels": encoded.labels}
