"""OnnxModel: an exported model run by ONNX Runtime, with the face of `AdaptedModel`.

No weights pass through PyTorch: texts are tokenised, cut into batches of similar length, and run on the processor.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from quickstudy.errors import RunError
from quickstudy.models.adapted import Text, checked_examples
from quickstudy.models.target import Target, make_target
from quickstudy.models.tokens import Sequences, TokenCache, batches, pad
from quickstudy.tasks.split import Example
from quickstudy.tasks.task import Kind

INFO, MODEL, TOKENIZER = "onnx.json", "model.onnx", "tokenizer"
_NAMES = ("input_ids", "attention_mask", "token_type_ids")
_PAIRS = 32  # separate pairs per call
_CPU = torch.device("cpu")


def need(*packages: str) -> None:
    """Raise `RunError` unless packages of the extra `onnx` are installed."""
    for package in packages:
        if find_spec(package) is None:
            raise RunError(f"the package {package} is not installed", fix="pip install 'quickstudy[onnx]'")


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / INFO).is_file()


def graph_inputs(*, separate: bool, types: bool) -> list[str]:
    """Return the names of a graph's inputs in their order; of separate pairs those of the second texts come last."""
    names = list(_NAMES if types else _NAMES[:2])
    return names + [f"second_{name}" for name in names] if separate else names


@dataclass(frozen=True)
class OnnxModel:
    """A model of one task as an ONNX graph.

    Attributes:
        session: ONNX Runtime's session.
        tokens: Texts to token ids.
        pad_id: Token id that fills up a batch.
        target: What the task asks for.
        pair: Whether it reads two texts.
        separate: Whether it encodes the two on their own.
        method: Name of the method that made it.
    """

    session: Any
    tokens: TokenCache
    pad_id: int
    target: Target
    pair: bool
    separate: bool
    method: str = ""

    @classmethod
    def load(cls, folder: str | Path, *, threads: int | None = None) -> "OnnxModel":
        """Read an exported model.

        Args:
            folder: Where `quickstudy export` wrote it.
            threads: Of one call; as many as there are cores by default.

        Raises:
            RunError: Not such a folder, a broken one, or the extra `onnx` is not installed.
        """
        source = Path(folder)
        if not is_exported(source):
            raise RunError("this is no exported model", where=str(source), fix="Make one with: quickstudy export")
        need("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        if threads:
            options.intra_op_num_threads = threads
        try:
            info = json.loads((source / INFO).read_text(encoding="utf-8"))
            tokenizer = AutoTokenizer.from_pretrained(source / TOKENIZER)
            session = onnxruntime.InferenceSession(str(source / MODEL), options, providers=["CPUExecutionProvider"])
            target = make_target(info["kind"], info["label_names"])
            described = target, info["pair"], info["separate"], info["method"]
            tokens = TokenCache(tokenizer, info["max_length"])
        except Exception as error:  # a half-copied folder fails in many ways; each means "broken"
            raise RunError(f"the exported model is broken ({error})", where=str(source), fix="Export again.") from error
        return cls(session, tokens, int(tokenizer.pad_token_id or 0), *described)

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

    def outputs(self, examples: Iterable[Example]) -> Tensor:
        """Return probabilities, (B, N), or numbers, (B, 1), rows in the order of the examples."""
        given = [(e.text, e.text_pair) for e in examples]
        unique = list(dict.fromkeys(given))
        sequences = self.tokens((Example(*key) for key in unique), separate=self.separate)
        found, rows = [], []
        for part, inputs in self._calls(sequences):
            (output,) = self.session.run(None, inputs)
            found.append(torch.from_numpy(output))
            rows.append(part)
        ordered = torch.cat(found)[torch.cat(rows).argsort()]
        place = {key: i for i, key in enumerate(unique)}
        return ordered[[place[key] for key in given]]

    def predict_proba(self, texts: Iterable[Text]) -> Tensor:
        """Return the probability of each label, (B, N); see `AdaptedModel.predict_proba`."""
        self.target.check_probabilities()
        return self.outputs(checked_examples(texts, pair=self.pair))

    def predict(self, texts: Iterable[Text]) -> list[str] | list[float]:
        """Return the most probable label name of each text, or its number for regression."""
        return self.target.decide(self.outputs(checked_examples(texts, pair=self.pair)))

    def _calls(self, sequences: Sequences) -> Iterator[tuple[Tensor, dict[str, Any]]]:
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
