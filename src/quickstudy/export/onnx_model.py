"""OnnxModel: an exported model that ONNX Runtime runs, with the same methods as `AdaptedModel`.

    texts → token ids → batches of similar length → ONNX Runtime on the processor → probabilities

PyTorch only holds token ids and results here; the weights stay in ONNX Runtime.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer

from quickstudy.errors import RunError
from quickstudy.models.adapted import checked_examples, refuse_not_finite
from quickstudy.models.record import read_record
from quickstudy.models.target import Target, make_target
from quickstudy.models.tokens import Sequences, TokenCache, batches, pad
from quickstudy.storage.manifest import check_manifest
from quickstudy.storage.trust import check_folder
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind
from quickstudy.tasks.text import Text

INFO, MODEL, TOKENIZER = "onnx.json", "model.onnx", "tokenizer"
ANSWERS, LOGITS = "output", "logits"  # what a graph gives
_NAMES = ("input_ids", "attention_mask", "token_type_ids")
_PAIRS = 32  # separate pairs per call
_CPU = torch.device("cpu")

Inputs = dict[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """What `onnx.json` says of an exported model.

    Attributes:
        label_names: N names; empty for regression.
        kind: Classification or regression.
        pair: Whether it reads two texts.
        separate: Whether it encodes the two texts one by one.
        max_length: Tokens per sequence.
        method: Name of the method that made it.
        int8: Whether its weights were rounded to 8 bits.
    """

    label_names: tuple[str, ...]
    kind: Kind
    pair: bool
    separate: bool
    max_length: int
    method: str
    int8: bool = False


def need(*packages: str) -> None:
    """Raise `RunError` unless packages of the extra `onnx` are installed."""
    for package in packages:
        if find_spec(package) is None:
            raise RunError(f"the package {package} is not installed", fix="pip install 'quickstudy[onnx]'")


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / INFO).is_file()


def graph_inputs(*, separate: bool, types: bool) -> list[str]:
    """Return the names of a graph's inputs in their order; the second texts of separate pairs come last."""
    names = list(_NAMES if types else _NAMES[:2])
    return names + [f"second_{name}" for name in names] if separate else names


@dataclass(frozen=True)
class OnnxModel:
    """A model of one task as an ONNX graph.

    Attributes:
        session: ONNX Runtime's session.
        tokens: Makes token ids of texts.
        pad_id: Token id that fills up a batch.
        info: What the export wrote down.
    """

    session: Any
    tokens: TokenCache
    pad_id: int
    info: ExportInfo

    @classmethod
    def load(cls, folder: str | Path, *, threads: int | None = None) -> "OnnxModel":
        """Read an exported model.

        Args:
            folder: Where `quickstudy export` wrote it.
            threads: Threads that a call uses; by default as many as there are cores.

        Raises:
            RunError: Not such a folder, a broken one, or the extra `onnx` is not installed.
        """
        source = Path(folder)
        if not is_exported(source):
            raise RunError("this is no exported model", where=str(source), fix="Make one with: quickstudy export")
        check_folder(source, "exported model")
        check_manifest(source, "exported model", "Copy it again, or export again.")
        need("onnxruntime")
        try:
            info = read_record(source / INFO, ExportInfo)
            tokenizer = AutoTokenizer.from_pretrained(source / TOKENIZER, trust_remote_code=False)
            session = _open_session(source / MODEL, threads)
        except Exception as error:  # a half-copied folder fails in many ways; each means "broken"
            raise RunError(f"the exported model is broken ({error})", where=str(source), fix="Export again.") from error
        return cls(session, TokenCache(tokenizer, info.max_length), int(tokenizer.pad_token_id or 0), info)

    @property
    def label_names(self) -> tuple[str, ...]:
        """N names; empty for regression."""
        return self.info.label_names

    @property
    def kind(self) -> Kind:
        """Classification or regression."""
        return self.info.kind

    @property
    def pair(self) -> bool:
        """Whether it reads two texts."""
        return self.info.pair

    @property
    def method(self) -> str:
        """Name of the method that made it."""
        return self.info.method

    @property
    def target(self) -> Target:
        """What the task asks for."""
        return make_target(self.info.kind, self.info.label_names)

    @property
    def classes_(self) -> tuple[str, ...]:
        """The label names, under the name scikit-learn uses."""
        return self.label_names

    def outputs(self, examples: Iterable[Example]) -> Tensor:
        """Return probabilities, (B, N), or numbers, (B, 1), rows in the order of the examples.

        Raises:
            RunError: The model gives NaN or infinity.
        """
        answers = self._run(examples, ANSWERS)
        refuse_not_finite(answers)
        return answers

    def logits(self, texts: Iterable[Text]) -> Tensor:
        """Return the logits, (B, N), or numbers, (B, 1); see `AdaptedModel.logits`.

        Raises:
            RunError: The model gives NaN or infinity, or it was exported by a version that did not write logits.
        """
        if LOGITS not in [output.name for output in self.session.get_outputs()]:
            raise RunError("this exported model gives no logits", fix="Export it again.")
        logits = self._run(checked_examples(texts, pair=self.pair), LOGITS)
        refuse_not_finite(self.target.answer(logits))
        return logits

    def _run(self, examples: Iterable[Example], output: str) -> Tensor:
        """Return one output of the graph, rows in the order of the examples; a text that comes twice runs once."""
        texts = [(e.text, e.text_pair) for e in examples]
        unique = list(dict.fromkeys(texts))
        sequences = self.tokens((Example(*key) for key in unique), separate=self.info.separate)
        outputs, rows = [], []
        for batch_rows, inputs in self._calls(sequences):
            (values,) = self.session.run([output], inputs)
            outputs.append(torch.from_numpy(values))
            rows.append(batch_rows)
        in_order = torch.cat(outputs)[torch.cat(rows).argsort()]
        place = {key: i for i, key in enumerate(unique)}
        return in_order[[place[key] for key in texts]]

    def predict_proba(self, texts: Iterable[Text]) -> Tensor:
        """Return the probability of each label, (B, N); see `AdaptedModel.predict_proba`."""
        self.target.check_probabilities()
        return self.outputs(checked_examples(texts, pair=self.pair))

    def predict(self, texts: Iterable[Text]) -> list[str] | list[float]:
        """Return the most probable label name of each text, or its number for regression."""
        return self.target.decide(self.outputs(checked_examples(texts, pair=self.pair)))

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read; longer texts are cut."""
        return self.info.max_length

    def count_cut(self, texts: Iterable[Text]) -> int:
        """Return how many texts, or pairs, are longer than the model reads."""
        return self.tokens.count_cut(checked_examples(texts, pair=self.pair), separate=self.info.separate)

    def forget_texts(self) -> None:
        """Free the memory that past texts take; see `AdaptedModel.forget_texts`."""
        self.tokens.forget()

    def _calls(self, sequences: Sequences) -> Iterator[tuple[Tensor, Inputs]]:
        """Yield rows (B,) and the inputs of the graph for each batch."""
        if not sequences.pairs:
            with torch.no_grad():
                for batch in batches(sequences, self.pad_id, _CPU):
                    yield batch.rows, {name: tensor.numpy() for name, tensor in batch.inputs.items()}
            return
        count = len(sequences)
        order = sorted(range(count), key=lambda i: len(sequences.ids[i]) + len(sequences.ids[count + i]))
        for start in range(0, count, _PAIRS):
            rows = order[start : start + _PAIRS]
            first = pad(sequences, rows, self.pad_id, _CPU)
            second = pad(sequences, [count + i for i in rows], self.pad_id, _CPU)
            inputs = {name: tensor.numpy() for name, tensor in first.inputs.items()}
            yield first.rows, inputs | {f"second_{name}": tensor.numpy() for name, tensor in second.inputs.items()}


def _open_session(file: Path, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
