"""AdaptedModel: a classifier (or regressor) for one task. `adapt` gives it; it is what is saved, loaded and served.

    p = softmax(head(f_φ(x)))

It holds only the adapted parameters φ, and shares everything else with the encoder it came from. A saved model is a
folder: `encoder/` (a plain Hugging Face folder with φ merged in), `head.safetensors`, `adapted.json`, `learned.json`
(what it was adapted from), a README.md, and `manifest.json` with the SHA-256 of all but the README. With `pooling =
"pooler"`, the features of BERT and RoBERTa are what the architecture's own sequence classifier puts its last layer on.
In that case `encoder/` opens with `AutoModelForSequenceClassification` and gives the same logits.

Several threads may predict with one model, and with several models of one encoder.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from quickstudy.errors import DataError, RecipeError, RunError, did_you_mean
from quickstudy.models.card import model_card
from quickstudy.models.classifier import save_sequence_classifier
from quickstudy.models.cut import Params
from quickstudy.models.encoder import Encoder
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.head import Head, LinearHead, ProjectedHead, head_name, head_of, head_tensors
from quickstudy.models.inference import fast_inference
from quickstudy.models.learned import Learned
from quickstudy.models.partition import Partition, Prefix
from quickstudy.models.record import read_record, write_record
from quickstudy.models.sentence_files import Dense, write_head_files
from quickstudy.models.target import Target, make_target
from quickstudy.models.weights import find_not_finite
from quickstudy.storage.files import new_folder, save_tensors, write_json, write_text
from quickstudy.storage.manifest import check_manifest, write_manifest
from quickstudy.storage.trust import check_folder
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind
from quickstudy.tasks.text import Text, parse_texts
from quickstudy.visible import visible

_FILE, _HEAD, _ENCODER, _LEARNED = "adapted.json", "head.safetensors", "encoder", "learned.json"
_CHUNK = 16384  # examples per pass when predicting; it bounds memory
_PREFIX_CHUNK = 1024  # the same where layers adapt, because the states below them are held for a whole pass
_HEAD_ROWS = 512  # examples at once for heads that hold numbers for each pair of example and support example, or label
_FAST_CHARACTERS = 8192  # per thread: this gives two batches or more, which save twice what laying out weights costs

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class _Description:
    """What `adapted.json` says; see `AdaptedModel`. `head` is a name in `HEADS`."""

    head: str
    label_names: tuple[str, ...]
    kind: Kind
    pair: bool
    method: str
    sequence_classifier: bool = False


@dataclass(frozen=True)
class AdaptedModel:
    """A model of one task.

    Attributes:
        partition: The encoder and which of its parameters adapt.
        params: Adapted encoder parameters φ by name.
        head: Features to scores.
        target: What the task asks for.
        pair: Whether the model reads two texts.
        method: Name of the method that made it, for the record.
        learned: What it was adapted from; None if nobody asked.
    """

    partition: Partition
    params: Params
    head: Head
    target: Target
    pair: bool
    method: str = ""
    learned: Learned | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of its N labels; empty for regression."""
        return self.target.label_names

    @property
    def kind(self) -> Kind:
        """`classification` or `regression`."""
        return self.target.kind

    @property
    def classes_(self) -> tuple[str, ...]:
        """The label names, under the name scikit-learn uses."""
        return self.label_names

    @property
    def size(self) -> int:
        """Number of parameters that belong to this task alone: φ and the head."""
        return sum(p.numel() for p in (*self.params.values(), *head_tensors(self.head).values()))

    @property
    def nbytes(self) -> int:
        """Bytes of all weights that `save` writes: encoder and head."""
        tensors = (*self.partition.encoder.model.state_dict().values(), *head_tensors(self.head).values())
        return sum(tensor.nbytes for tensor in tensors)

    @torch.no_grad()
    def scores(self, prefix: Prefix) -> Tensor:
        """Return (B, N) logits, or (B, 1) numbers, of examples whose prefix has run already."""
        features = self.partition.features(self.params, prefix)
        if isinstance(self.head, LinearHead | ProjectedHead):
            return self.head(features)
        return torch.cat([self.head(rows) for rows in torch.split(features, _HEAD_ROWS)])

    @torch.no_grad()
    def logits(self, texts: Iterable[Text]) -> Tensor:
        """Return the logits, (B, N), or numbers, (B, 1), rows in the order of `texts`.

        Raises:
            DataError: A text that does not fit the model.
            RunError: The model gives NaN or infinity.
        """
        examples = checked_examples(texts, pair=self.pair)
        unique = list(dict.fromkeys((e.text, e.text_pair) for e in examples))  # labels do not change what is run
        characters = [len(first) + len(second or "") for first, second in unique]
        fast = self._runs_fast(sum(characters))
        if fast and self.partition.names:  # threads cannot share an encoder whose parameters are given from outside
            return replace(self, partition=Partition(self.merged_encoder(), "head"), params={}).logits(examples)
        # Sorting by length first keeps padding small across the chunks too.
        order = sorted(range(len(unique)), key=characters.__getitem__)
        chunks = _chunks(order, _PREFIX_CHUNK if self.partition.names else _CHUNK)
        with fast_inference() if fast else nullcontext():
            scores = [self._run([Example(*unique[row]) for row in rows]) for rows in chunks]
        positions = {key: position for position, key in enumerate(unique)}
        back = torch.tensor(order).argsort()[[positions[e.text, e.text_pair] for e in examples]]
        logits = torch.cat(scores).cpu()[back]
        refuse_not_finite(self.target.answer(logits))
        return logits

    def _runs_fast(self, characters: int) -> bool:
        """Whether so many characters of text are worth the preparation that fast inference takes."""
        many = characters >= _FAST_CHARACTERS * torch.get_num_threads()
        return many and self.partition.encoder.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _run(self, examples: Sequence[Example]) -> Tensor:
        sequences = self.partition.encoder.tokenize(examples)
        cache = FeatureCache(self.partition.encoder)  # a text that is in many pairs is run once
        return self.scores(self.partition.prefix(sequences, cache=cache))

    def predict_proba(self, texts: Iterable[Text]) -> Tensor:
        """Return the probability of each label, (B, N), rows in the order of `texts`.

        Args:
            texts: Texts, (text, second text) tuples for pairs, or `Example`s.

        Raises:
            DataError: A single text where a pair is needed or the other way round; a regression model.
            RunError: The model gives NaN or infinity.
        """
        self.target.check_probabilities()
        return self.target.answer(self.logits(texts))

    def predict(self, texts: Iterable[Text]) -> list[str] | list[float]:
        """Return the most probable label name of each text, or its number for regression."""
        return self.target.decide(self.target.answer(self.logits(texts)))

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read; longer texts are cut."""
        return self.partition.encoder.settings.max_length

    def count_cut(self, texts: Iterable[Text]) -> int:
        """Return how many texts, or pairs, are longer than the model reads."""
        return self.partition.encoder.count_cut(checked_examples(texts, pair=self.pair))

    def forget_texts(self) -> None:
        """Free the memory that past texts take; they are kept because texts often come again."""
        self.partition.encoder.forget_texts()

    def save(self, folder: str | Path, *, beside: Mapping[str, object] | None = None) -> Path:
        """Write the model to a new folder, whole or not at all, and return its path.

        Args:
            folder: The folder to make.
            beside: Further JSON files for the folder, by name.

        Raises:
            RunError: The folder exists; the weights are in half precision, or hold NaN or infinity.
        """
        target = Path(folder)
        if self.partition.encoder.model.dtype == torch.bfloat16:
            raise RunError("weights in bf16 are for prediction alone", fix="Load the model in fp32, then save it.")
        if find_not_finite(head_tensors(self.head)):
            fix = "The adaptation diverged: use a lower learning rate."
            raise RunError("the model cannot be saved: its head holds NaN or infinity", fix=fix)
        with new_folder(target, size=self.nbytes) as folder:
            for name, value in (beside or {}).items():
                write_json(folder / name, value)
            self._write(folder, beside or {})
        return target

    def _write(self, folder: Path, beside: Iterable[str]) -> None:
        with self._whole_encoder() as whole:
            standard = (
                isinstance(self.head, LinearHead)
                and bool(self.label_names)
                and save_sequence_classifier(whole, self.head, self.label_names, self.pair, folder / _ENCODER)
            )
            if not standard:
                whole.save(folder / _ENCODER)
        save_tensors(head_tensors(self.head), folder / _HEAD)
        description = _Description(head_name(self.head), self.label_names, self.kind, self.pair, self.method, standard)
        write_record(folder / _FILE, description)
        modules = self._write_head_files(folder)
        card = model_card(self, sequence_classifier=standard, modules=bool(modules))
        write_text(folder / "README.md", visible(card))
        if self.learned:
            write_json(folder / _LEARNED, asdict(self.learned))
        write_manifest(folder, [_FILE, _HEAD, _ENCODER, *modules, *beside, *([_LEARNED] if self.learned else [])])

    @contextmanager
    def _whole_encoder(self) -> Iterator[Encoder]:
        """Give an encoder with φ merged in, for reading alone: a copy only if there is a φ."""
        if self.params:
            yield self.merged_encoder()
            return
        with self.partition.encoder.run_lock.shared():
            yield self.partition.encoder

    def _write_head_files(self, folder: Path) -> list[str]:
        """Write the head for sentence-transformers, if it has linear layers only, and return the names of the files."""
        layers: list[Dense] = []
        if isinstance(self.head, LinearHead | ProjectedHead):
            layers = [Dense(weight, bias, tanh) for weight, bias, tanh in self.head.layers]
        separate = self.pair and self.partition.encoder.settings.pair == "separate"
        return write_head_files(folder, _ENCODER, layers) if layers and not separate else []

    @classmethod
    def load(cls, folder: str | Path, *, precision: str = "fp32") -> "AdaptedModel":
        """Read a saved model.

        Args:
            folder: Where `save` wrote it.
            precision: `fp32`, or `bf16`: the encoder's weights and states in bfloat16, pooling and head in float32.

        Raises:
            RunError: Not such a folder, or a broken one.
            RecipeError: An unknown precision.
        """
        source = Path(folder)
        if precision not in PRECISIONS:
            int8 = "int8 is for exported models: quickstudy export MODEL --out FOLDER --int8"
            fix = int8 if precision == "int8" else did_you_mean(precision, PRECISIONS)
            raise RecipeError(f"there is no precision {precision!r}", fix=fix)
        if not is_model(source):
            raise RunError("this is not a model folder", where=str(source), fix="Make one with: quickstudy adapt")
        check_folder(source, "model folder")
        check_manifest(source, "model folder", "Copy it again, or adapt again.")
        try:
            description = read_record(source / _FILE, _Description)
            head = head_of(description.head, load_file(source / _HEAD))
            learned = _read_learned(source / _LEARNED)
        except Exception as error:  # a half-copied folder fails in many ways; each means "broken"
            raise _broken(source, error) from error
        encoder = Encoder.restore(source / _ENCODER)
        try:
            _check_head(head, encoder, description)
        except Exception as error:
            raise _broken(source, error) from error
        encoder.model.to(PRECISIONS[precision])  # once: autocast would cast the weights in every call
        target = make_target(description.kind, description.label_names)
        return cls(Partition(encoder, "head"), {}, head, target, description.pair, description.method, learned)

    def merged_encoder(self) -> Encoder:
        """Return a new encoder with φ merged in."""
        merged = self.partition.encoder.copy()
        weights = dict(merged.model.named_parameters())
        with torch.no_grad():
            for name, value in self.params.items():
                weights[name].copy_(value)
        return merged


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model that `save` wrote."""
    return (folder / _FILE).is_file()


def start_of(folder: Path) -> tuple[str, ...]:
    """Return the name of what a saved model was adapted from; nothing if the folder does not say."""
    learned = _read_learned(folder / _LEARNED)
    return (learned.prior,) if learned and learned.prior else ()


def checked_examples(texts: Iterable[Text], *, pair: bool) -> list[Example]:
    """Return texts to predict as examples.

    Args:
        texts: Texts, (text, second text) tuples, or `Example`s; see `parse_texts`.
        pair: Whether the model reads two texts.

    Raises:
        DataError: There is none; one is no text or empty; a single text where a pair is needed or the other way round.
    """
    examples = parse_texts(texts)
    if not examples:
        raise DataError("there is no text to predict", fix="Give at least one text.")
    for i, example in enumerate(examples):
        if (example.text_pair is not None) != pair:
            raise _wrong_number_of_texts(pair, f"texts[{i}]")
    return examples


def refuse_not_finite(outputs: Tensor) -> None:
    """Raise `RunError` if probabilities or numbers, (B, N), hold NaN or infinity."""
    if not (finite := outputs.isfinite().all(-1)).all():
        raise RunError(
            "the model gives NaN or infinity for this text",
            where=f"texts[{int(finite.int().argmin())}]",
            fix="Its weights are damaged, or the adaptation diverged: adapt again. With bf16, try fp32 first.",
        )


def _wrong_number_of_texts(pair: bool, place: str) -> DataError:
    if pair:
        fix = "Give (text, second text); on the command line --pair, or a file with a column text_pair."
        return DataError("this model reads pairs of texts, and a second text is missing", where=place, fix=fix)
    return DataError("this model reads single texts, and there is a second one", where=place, fix="Leave it out.")


def _read_learned(file: Path) -> Learned | None:
    """Return what a model was adapted from; None if the file is not there."""
    return TypeAdapter(Learned).validate_json(file.read_bytes()) if file.is_file() else None


def _check_head(head: Head, encoder: Encoder, description: _Description) -> None:
    """Raise an error unless the head takes the encoder's features and gives one finite score per label."""
    if broken := find_not_finite(head_tensors(head)):
        raise ValueError(f"{broken[0]} of the head holds NaN or infinity")
    scores = head(torch.zeros(1, encoder.feature_size(pair=description.pair)))
    expected = 1 if description.kind == "regression" else len(description.label_names)
    if scores.shape != (1, expected):
        raise ValueError(f"the head gives {scores.shape[-1]} scores for {expected} labels")


def _broken(folder: Path, error: Exception) -> RunError:
    return RunError(f"the model folder is broken ({error})", where=str(folder), fix="Copy it again, or adapt again.")


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
