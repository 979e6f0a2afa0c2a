"""ONNX file: an adapted model as one graph, from token ids to probabilities and logits.

    p = softmax(head(pool(f_φ(ids, mask))))          separate pairs: f_φ runs on both texts

The folder holds `model.onnx`, `tokenizer/`, `onnx.json`, a README.md and `manifest.json`. The graph takes batches of
any size and texts of any length. With int8, weights are rounded once, column by column, and states are scaled by the
range of each batch. The logits of the exported graph are compared with those of the original model before it is kept,
so a head or an architecture that the exporter traces wrongly is refused. With int8 this holds for the graph before its
weights are rounded.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_
from pathlib import Path

import torch
from torch import Tensor, nn

from quickstudy.errors import RunError
from quickstudy.export.onnx_model import (
    ANSWERS,
    INFO,
    LOGITS,
    MODEL,
    TOKENIZER,
    ExportInfo,
    OnnxModel,
    graph_inputs,
    need,
)
from quickstudy.export.parity import Parity
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.card import exported_card
from quickstudy.models.head import NetHead, head_name, head_of, head_tensors
from quickstudy.models.record import write_record
from quickstudy.models.tokens import Sequences, pad
from quickstudy.storage.files import new_folder, write_text
from quickstudy.storage.manifest import write_manifest
from quickstudy.tasks.split import Example

OPSET = 20
_TOLERANCE = 1e-4  # in logits or numbers, relative to the largest if that is above 1; int8 may differ more

# Deprecation warnings about the exporter's own code, which users cannot change. Other warnings are still shown.
_EXPORTER_WARNINGS = (r"`isinstance\(treespec, LeafSpec\)` is deprecated",)
_NOISY = ("torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")


def export_onnx(model: AdaptedModel, folder: str | Path, *, int8: bool = False) -> Parity:
    """Write a model to a new folder for ONNX Runtime, whole or not at all, and return how near it is to the model.

    Args:
        model: A classifier or regressor in fp32, on any device.
        folder: A new folder.
        int8: Round the weights of matrix products to 8 bits.

    Raises:
        RunError: The folder exists, the extra `onnx` is not installed, or the model cannot be exported faithfully.
    """
    need("onnx", "onnxscript", "onnxruntime")
    if model.partition.encoder.model.dtype != torch.float32:
        raise RunError("weights in half precision are not exported", fix="Load the model in fp32, then export it.")
    graph = _Graph(model)
    length = graph.encoder.settings.max_length
    info = ExportInfo(model.label_names, model.kind, model.pair, graph.separate, length, model.method, int8)
    with new_folder(Path(folder)) as scratch:
        _write_graph(graph, _probe(graph, model.pair), scratch / MODEL)
        graph.encoder.tokenizer.save_pretrained(scratch / TOKENIZER)
        write_record(scratch / INFO, info)
        parity = _compare(graph, OnnxModel.load(scratch), model.pair)
        if not parity.holds:
            raise _not_exported(graph, f"the logits of the exported graph differ by {parity.difference:.1e}")
        if int8:
            _quantize(scratch / MODEL)
            parity = _compare(graph, OnnxModel.load(scratch), model.pair)
        write_text(scratch / "README.md", exported_card(model, int8=int8))
        write_manifest(scratch, [INFO, MODEL, TOKENIZER])
    return parity


class _Graph(nn.Module):
    """The whole model as one module of tensors."""

    def __init__(self, model: AdaptedModel) -> None:
        super().__init__()
        self.encoder = model.merged_encoder().cpu()
        name = head_name(model.head)
        self.head = head_of(name, {key: tensor.cpu() for key, tensor in head_tensors(model.head).items()})
        self.net = self.head.net.eval() if isinstance(self.head, NetHead) else None  # registers its parameters
        self.separate = model.pair and self.encoder.settings.pair == "separate"
        self.target = model.target
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return answers and logits of inputs in the order of `graph_inputs`, each (B, T).

        Answers are probabilities (B, N), or numbers (B, 1), of which the logits are a copy.
        """
        if self.separate:
            half = len(inputs) // 2
            features = self.encoder.join_pair(self._vectors(inputs[:half]), self._vectors(inputs[half:]))
        else:
            features = self._vectors(inputs)
        logits = self.head(features)
        return self.target.answer(logits), 1.0 * logits  # an output of its own, also where both are the same numbers

    def _vectors(self, inputs: tuple[Tensor, ...]) -> Tensor:
        named = dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs, strict=False))
        return self.encoder.pool(self.encoder.model(**named).last_hidden_state, named["attention_mask"])


_TEXTS = ("a short text", "another and somewhat longer text than that", "one", "it was late, and so on and so on " * 3)


def _probe(graph: _Graph, pair: bool) -> Sequences:
    """Return sequences of several lengths. A batch size or a length of 1, or both equal, would be traced as fixed."""
    return graph.encoder.tokenize(
        Example(a, b if pair else None) for a, b in zip(_TEXTS, _TEXTS[1:] + _TEXTS[:1], strict=True)
    )


def _write_graph(graph: _Graph, probe: Sequences, file: Path) -> None:
    count, pad_id = len(probe), graph.encoder.pad_id
    groups = [range(count), range(count, 2 * count)] if graph.separate else [range(count)]
    values = [pad(probe, list(rows), pad_id, torch.device("cpu")).inputs for rows in groups]
    arguments = tuple(tensor for inputs in values for tensor in inputs.values())
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                graph,
                arguments,
                str(file),
                input_names=graph_inputs(separate=graph.separate, types=probe.types is not None),
                output_names=[ANSWERS, LOGITS],
                dynamic_shapes={"inputs": (free,) * len(arguments)},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        # The exporter's message is a page on how to report a bug in the exporter; it stays attached as the cause.
        raise _not_exported(graph, "torch's exporter cannot trace it for a free batch size and length") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide deprecation warnings about the exporter's own code and its remarks on libraries that are not needed."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _EXPORTER_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _compare(graph: _Graph, exported: OnnxModel, pair: bool) -> Parity:
    """Return how near the logits of the file are to those of the original model.

    The batch sizes and lengths that are compared differ from those of the export.
    """
    parities = []
    for texts in (_TEXTS[:1], _TEXTS[2:], _TEXTS * 2):
        examples = [Example(text, _TEXTS[i % 4] if pair else None) for i, text in enumerate(texts)]
        wanted = torch.cat([_run(graph, example) for example in examples])
        parities.append(Parity.between(exported.logits(examples), wanted, _TOLERANCE))
    return reduce(or_, parities)


@torch.no_grad()
def _run(graph: _Graph, example: Example) -> Tensor:
    sequences = graph.encoder.tokenize([example])
    rows = [[0], [1]] if graph.separate else [[0]]
    batches = [pad(sequences, row, graph.encoder.pad_id, torch.device("cpu")).inputs for row in rows]
    logits: Tensor = graph(*(tensor for inputs in batches for tensor in inputs.values()))[1]
    return logits


def _not_exported(graph: _Graph, why: str) -> RunError:
    kind = f"{graph.encoder.model.config.model_type} with a {type(graph.head).__name__}"
    return RunError(
        f"{kind} cannot be exported: {why}", fix="Predict with the model folder itself, or --precision bf16."
    )


def _quantize(file: Path) -> None:
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Constants are folded first: the exporter writes a weight and a transposition, and quantisation would skip those.
    folded = file.with_name("folded.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    root = logging.getLogger()
    level, keep = root.level, logging.ERROR
    root.setLevel(keep)  # it advises pre-processing, which was just done
    try:
        # Only MatMul: the head is a Gemm on few numbers. It costs nothing and decides the label, so it stays exact.
        kinds = {"op_types_to_quantize": ["MatMul"], "weight_type": QuantType.QInt8, "per_channel": True}
        quantize_dynamic(folded, file, **kinds)
    finally:
        root.setLevel(level)
        folded.unlink()
