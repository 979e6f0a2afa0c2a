"""Encoder: turns each text into a feature vector. It is a Hugging Face model with pooling and a way to read pairs.

    mean:    f = sum_t m_t h_t / sum_t m_t          cls:    f = h_0          pooler:    f = the model's pooler_output
    joint:   f([CLS] a [SEP] b [SEP])               separate:   [f(a) / 2, f(b) / 2, |f(a) - f(b)|, f(a) f(b)]

The encoder decides how a pair is read, so all methods and baselines share it. Sentence encoders are trained so that
the distance between texts has a meaning; they read pairs separately. All other encoders read pairs jointly. Both
choices were measured (dev/LOG.md). Separate pairs are those of InferSent (Conneau et al. 2017, arXiv:1705.02364) with
weights. The product of two unit vectors is small, so it is multiplied by sqrt(D). It is then about as large as the
difference. The vectors of the two texts are divided by 2, because they say what a pair is about and not how its texts
relate. The whole is divided by sqrt(2), so that the features of a pair are about as long as those of a single text.

The encoder is always in eval mode, without dropout, so the meta-gradient is exact and the same on every machine.
"""

import copy
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quickstudy.errors import RecipeError, RunError
from quickstudy.models.bundled import HUB_ID, NAME, check_downloaded, resolve
from quickstudy.models.feature_cache import FeatureCache
from quickstudy.models.inference import side_by_side
from quickstudy.models.packing import first_position, packed
from quickstudy.models.position import find_token_limit
from quickstudy.models.record import read_record, write_record
from quickstudy.models.run_lock import RunLock
from quickstudy.models.sentence_files import write_sentence_files
from quickstudy.models.tokens import Batch, Sequences, TokenCache
from quickstudy.models.weights import find_not_finite, not_loaded, read_encoder, without_bars
from quickstudy.storage.files import write_json
from quickstudy.storage.manifest import check_listed
from quickstudy.storage.revision import find_commit
from quickstudy.tasks.split import Example

_log = logging.getLogger(__name__)

Pooling = Literal["mean", "cls", "pooler"]
PairReading = Literal["joint", "separate"]

_SETTINGS_FILE = "quickstudy.json"
NO_CLASSIFIER = "no classifier is in this folder: it holds an encoder; use quickstudy"


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """How texts become features; saved beside the weights.

    Attributes:
        pooling: How token states become one vector.
        pair: How two texts are read.
        normalize: Whether f is scaled to unit length, as sentence encoders do.
        max_length: Tokens per sequence; longer ones are cut.
    """

    pooling: Pooling = "mean"
    pair: PairReading = "joint"
    normalize: bool = False
    max_length: int = 128


class Encoder(nn.Module):
    """A language encoder that gives features.

    Args:
        model: Any `AutoModel` encoder.
        tokenizer: Its tokenizer.
        settings: Pooling, pairs, normalisation, length.

    Attributes:
        run_lock: Keeps runs with weights from outside apart from all others.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EncoderSettings) -> None:
        super().__init__()
        self.model = model.eval()
        self.tokenizer, self.settings = tokenizer, settings
        self._tokens = TokenCache(tokenizer, settings.max_length)
        self._first_position = first_position(self.model, self.pad_id)
        self.run_lock = RunLock()

    @classmethod
    def load(cls, name: str, *, revision: str | None = None, **choices: Any) -> Self:
        """Load an encoder by Hub id, folder, or `minilm` (bundled); `models/weights.py` says what is refused.

        Args:
            name: What to load.
            revision: Branch, tag or commit of a Hub id; None for the main branch.
            choices: Fields of `EncoderSettings` that replace the defaults for this kind of encoder.

        Raises:
            RunError: It cannot be loaded, or its weights are refused.
            RecipeError: It has no pooler, and `pooling` asks for one.
        """
        source = resolve(name)
        if revision is not None and (name == NAME or Path(source).is_dir()):
            fix = "Leave revision out: it is for an encoder on the Hub."
            raise RecipeError(f"the encoder {name!r} has no revision {revision!r}", fix=fix)
        if Path(source).is_dir():  # a run or a model lists the files of its encoder
            check_listed(Path(source), "folder of this encoder", "Copy it again.")
        else:
            revision = find_commit(source, revision, "model") or revision
        settings = replace(_default_settings(source), **choices)
        pooled = settings.pooling == "pooler"
        model, tokenizer = read_encoder(name, source, needs_pooler=pooled, saved=False, revision=revision)
        if source == HUB_ID and name == NAME:
            check_downloaded(revision)
        if pooled and getattr(model, "pooler", None) is None:
            raise RecipeError(f"the encoder {name!r} has no pooler", fix="Use pooling = 'mean' or 'cls'.")
        limit = find_token_limit(model, tokenizer)
        if limit is not None and limit < settings.max_length != EncoderSettings().max_length:
            _log.warning("max_length = %d: this encoder reads %d tokens, and cuts there", settings.max_length, limit)
        return cls._make(name, model, tokenizer, settings)

    @classmethod
    def restore(cls, folder: Path) -> Self:
        """Load an encoder that `save` wrote: its settings must be there, and all its weights, and no others.

        The caller checks the manifest, which lists more than the encoder.

        Raises:
            RunError: A file is missing or damaged.
        """
        settings = _read_settings(folder / _SETTINGS_FILE)
        model, tokenizer = read_encoder(str(folder), str(folder), needs_pooler=True, saved=True)
        return cls._make(str(folder), model, tokenizer, settings)

    @classmethod
    def _make(
        cls, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EncoderSettings
    ) -> Self:
        """Return an encoder that has read a text, so that a tokenizer or a configuration that is damaged is told."""
        try:
            encoder = cls(model, tokenizer, _limited(settings, model, tokenizer))
            with torch.no_grad():
                encoder(encoder.tokenize([Example("a text", "another" if settings.pair == "joint" else None)]))
            encoder.forget_texts()
        except Exception as error:  # damaged files fail in many ways
            raise not_loaded(name, error) from error
        return encoder

    def save(self, folder: Path) -> None:
        """Write the encoder to a folder that quickstudy, transformers and sentence-transformers open.

        `AutoModel.from_pretrained` gives its token states, `SentenceTransformer` the features of single texts.

        Raises:
            RunError: A weight is NaN or infinity.
        """
        if broken := find_not_finite(self.model.state_dict()):
            raise RunError(
                f"the encoder cannot be saved: its weight {broken[0]} holds NaN or infinity",
                fix="The training diverged: use a lower learning rate.",
            )
        with without_bars():
            self.model.save_pretrained(folder)
        # A tokenizer saves the length at which it last cut a text: the file must not depend on which text that was.
        self.tokenizer("", truncation=True, max_length=self.settings.max_length)
        self.tokenizer.save_pretrained(folder)
        write_record(folder / _SETTINGS_FILE, self.settings)
        _mark_without_classifier(folder / "config.json")
        settings = self.settings
        write_sentence_files(
            folder,
            size=self.feature_size(pair=False),
            pooling=settings.pooling,
            pooler=getattr(self.model, "pooler", None),
            normalize=settings.normalize,
            max_length=settings.max_length,
        )

    def copy(self) -> "Encoder":
        """Return an encoder with weights of its own; it waits while weights from outside stand in for this one's."""
        with self.run_lock.shared():
            return Encoder(copy.deepcopy(self.model), self.tokenizer, self.settings)

    def shortened(self, max_length: int) -> "Encoder":
        """Return an encoder with the same weights that cuts sequences at `max_length` tokens, if that is shorter."""
        length = min(max_length, self.settings.max_length)
        return Encoder(self.model, self.tokenizer, replace(self.settings, max_length=length))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return torch.device(next(self.model.parameters()).device)

    def feature_size(self, *, pair: bool) -> int:
        """Return F, the size of the features of single texts or of pairs."""
        size = int(self.model.config.hidden_size)
        return 4 * size if pair and self.settings.pair == "separate" else size

    @property
    def feature_sizes(self) -> set[int]:
        """The sizes F that features can have: those of single texts and of pairs."""
        return {self.feature_size(pair=pair) for pair in (False, True)}

    def tokenize(self, examples: Iterable[Example]) -> Sequences:
        """Return the token ids of examples. Each text is tokenised once."""
        return self._tokens(examples, separate=self.settings.pair == "separate")

    def count_cut(self, examples: Iterable[Example]) -> int:
        """Return how many examples are longer than `settings.max_length` tokens: the rest of them is not read."""
        return self._tokens.count_cut(examples, separate=self.settings.pair == "separate")

    def forget_texts(self) -> None:
        """Forget the token ids of all texts so far, which are kept for texts that come again."""
        self._tokens.forget()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode (see the top of this file); gradients flow all the same."""
        return super().train(False)

    def forward(self, sequences: Sequences, *, cache: FeatureCache | None = None) -> Tensor:
        """Return features of B examples, (B, F); F is D, or 4D for separate pairs. See `vectors` for the cache."""
        return self.join(self.vectors(sequences, cache=cache), pairs=sequences.pairs)

    def vectors(self, sequences: Sequences, *, cache: FeatureCache | None = None) -> Tensor:
        """Return one vector per sequence, (B, D), or (2B, D) for separate pairs, in order.

        Args:
            sequences: Token ids.
            cache: Sequences that it knows are not run again, and those that it does not know are added. It is not used
                while gradients are asked for, because they need the run.
        """
        if cache is None or torch.is_grad_enabled():
            return self._run(sequences)
        return cache.complete(sequences, self, self._run)

    def _run(self, sequences: Sequences) -> Tensor:
        def run(batch: Batch) -> tuple[Tensor, Tensor]:
            states = batch.states(self.model(**batch.inputs).last_hidden_state)
            return self.pool(states, batch.mask), batch.rows

        # Batches are cut when they are first asked for, in there: their size depends on PyTorch's number of threads.
        with self.run_lock.shared():
            pooled, rows = zip(*side_by_side(run, self.batches(sequences)), strict=True)
        return restore_order(pooled, rows)

    def batches(self, sequences: Sequences) -> Iterator[Batch]:
        """Cut sequences into batches for the model."""
        return packed(sequences, self.pad_id, self._first_position, next(self.model.parameters()))

    @property
    def pad_id(self) -> int:
        """The token id that fills up a batch."""
        return int(self.tokenizer.pad_token_id or 0)

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return one vector per sequence, (B, D), given token states (B, T, D) and their mask (B, T).

        The vectors are float32 even if the states are in half precision, because long sums and unit lengths need it.
        """
        if self.settings.pooling == "pooler":
            states = self.model.pooler(states)
        if states.dtype in (torch.bfloat16, torch.float16):
            states = states.float()
        if self.settings.pooling == "mean":
            weight = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weight).sum(1) / weight.sum(1)
        elif self.settings.pooling == "cls":
            pooled = states[:, 0]
        else:
            pooled = states
        return nn.functional.normalize(pooled, dim=-1) if self.settings.normalize else pooled

    def join(self, vectors: Tensor, *, pairs: bool) -> Tensor:
        """Return the features that belong to the vectors of sequences: the two texts of separate pairs are joined."""
        if not pairs:
            return vectors
        return self.join_pair(*vectors.chunk(2))

    def join_pair(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the features of separate pairs, (B, 4D), given the vectors of first and second texts, each (B, D)."""
        product = first * second * (first.shape[-1] ** 0.5 if self.settings.normalize else 1.0)
        return torch.cat([first / 2, second / 2, (first - second).abs(), product], dim=-1) / 2**0.5


def restore_order(pooled: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    """Put the vectors of several batches back in order."""
    return torch.cat(list(pooled))[torch.cat(list(rows)).argsort()]


def _default_settings(source: str) -> EncoderSettings:
    """Return the saved settings; without them those of a sentence encoder, if it is one, or those of a plain one."""
    folder = Path(source)
    if (folder / _SETTINGS_FILE).is_file():
        return _read_settings(folder / _SETTINGS_FILE)
    if (folder / "modules.json").is_file() or source.startswith("sentence-transformers/"):
        return EncoderSettings("mean", "separate", normalize=True)
    return EncoderSettings()


def _read_settings(file: Path) -> EncoderSettings:
    try:
        return read_record(file, EncoderSettings)
    except ValueError as error:
        raise RunError(
            f"the settings of the encoder are broken ({error})", where=str(file), fix="Save the encoder again."
        ) from error


def _limited(settings: EncoderSettings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> EncoderSettings:
    """Return settings with no more tokens than the model can read."""
    limit = find_token_limit(model, tokenizer)
    return settings if limit is None else replace(settings, max_length=min(settings.max_length, limit))


def _mark_without_classifier(config_file: Path) -> None:
    """Name the only class in `config.json` so that nobody takes the answer of a random head for a prediction.

    `pipeline("text-classification")` opens every encoder, with a warning at most, and puts a random head on it.
    """
    config = json.loads(config_file.read_text(encoding="utf-8"))
    write_json(config_file, config | {"id2label": {"0": NO_CLASSIFIER}, "label2id": {NO_CLASSIFIER: 0}})
