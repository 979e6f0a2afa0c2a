"""Prediction: 10,000 short texts through an adapted MiniLM, beside sentence-transformers encoding the same texts.

    python benchmarks/prediction.py [--texts REF ...] [--count 10000] [--threads N] [--repeat 3] [--onnx] [--out FILE]

The same weights in both. sentence-transformers only encodes; quickstudy encodes and classifies, and starts every round without
cached tokens. Texts are distinct, so nothing is gained from duplicates. Without --texts they are made from the bundled samples:
the samples themselves, then first halves of samples followed by second halves of others until there are enough.

Rounds are interleaved. A ratio is that of two times in one round: the median over the rounds, with least and greatest. Times
are core seconds (`process_time`), which other processes disturb least, and wall clock beside. Threads: as many as PyTorch takes.
Before anything is timed, features must agree to 1e-5. --onnx adds ONNX Runtime, fp32 and int8 (extra `onnx`).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from quickstudy.adaptation.few import adapt_task
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.draws import support_sets
from quickstudy.methods.catalog import make
from quickstudy.models.adapted import AdaptedModel
from quickstudy.models.bundled import public_name, resolve
from quickstudy.models.encoder import Encoder
from quickstudy.models.inference import fast_inference
from quickstudy.models.partition import Partition
from quickstudy.seeding import rng
from quickstudy.tasks.split import Example, ListSplit
from quickstudy.tasks.task import Task
from quickstudy.versions import versions

PEER, OURS = "sentence-transformers, batch 32", "quickstudy fp32"
CHECKED = 200  # texts whose features are compared before anything is timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", metavar="REF", help="task references to take texts from")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--onnx", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/prediction.json"))
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    texts = short_texts(options.texts, options.count)
    peer = SentenceTransformer(resolve("minilm"), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        models = load_models(Path(folder), onnx=options.onnx, threads=options.threads)
        difference = check_features(peer, models[OURS], texts[:CHECKED])
        print("timing", flush=True)
        found, times = measure(peer, models, texts, options.repeat)
    lengths = [len(ids) for ids in models[OURS].partition.encoder.tokenize(map(Example, texts)).ids]
    result = {
        "versions": versions("sentence-transformers", *(["onnxruntime"] if options.onnx else [])),
        "threads": options.threads,
        "texts": len(texts),
        "from": [public_name(reference) for reference in options.texts or ["samples"]],
        "tokens_per_text": {"mean": statistics.mean(lengths), "median": statistics.median(lengths)},
        "repeat": options.repeat,
        "largest_difference_of_features": difference,
        "rows": [row(case, times, found, len(texts)) for case in times],
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)


def short_texts(references: list[str] | None, count: int) -> list[str]:
    """Return distinct texts in a fixed random order."""
    tasks = load_tasks(references or ["samples"])
    examples = [split[i] for task in tasks for split in task.splits.values() for i in range(len(split))]
    own = list(dict.fromkeys(text for e in examples for text in (e.text, e.text_pair) if text))
    random = rng(0, "prediction benchmark")
    texts = dict.fromkeys(own[i] for i in random.permutation(len(own)))
    if not references:
        while len(texts) < count:
            first, second = (own[i].split() for i in random.integers(len(own), size=2))
            texts[" ".join([*first[: len(first) // 2], *second[len(second) // 2 :]])] = None
    if len(texts) < count:
        raise DataError(
            f"there are {len(texts)} distinct texts", where=" ".join(references or ()), fix="Lower --count."
        )
    return list(texts)[:count]


def load_models(folder: Path, *, onnx: bool, threads: int) -> dict[str, Any]:
    """Adapt MiniLM to 4 classes from 8 examples each, and load the classifier in every precision."""
    source = load_tasks("samples:fin_complaint_type")[0]
    task = Task("complaints", {"train": ListSplit(support_sets(source, 8, 1, seed=0)[0])}, source.label_names)
    adapted = adapt_task(make("protonet", Encoder.load("minilm"), {}), task)
    adapted.save(folder / "model")
    models: dict[str, Any] = {
        OURS: AdaptedModel.load(folder / "model"),
        "quickstudy bf16": AdaptedModel.load(folder / "model", precision="bf16"),
    }
    if onnx:
        from quickstudy.export.onnx_file import export_onnx
        from quickstudy.export.onnx_model import OnnxModel

        for name, int8 in (("onnx fp32", False), ("onnx int8", True)):
            export_onnx(adapted, folder / name, int8=int8)
            models[f"quickstudy {name}"] = OnnxModel.load(folder / name, threads=threads)
    return models


def check_features(peer: SentenceTransformer, ours: AdaptedModel, texts: list[str]) -> float:
    """Return the largest difference between features, which must be rounding."""
    encoder = ours.partition.encoder
    with fast_inference():
        features = encoder(encoder.tokenize(map(Example, texts)))
    difference = float((features - torch.from_numpy(peer.encode(texts))).abs().max())
    if difference > 1e-5:
        raise SystemExit(f"the two encoders differ by {difference:.1e}: their times cannot be compared")
    return difference


def measure(
    peer: SentenceTransformer, models: dict[str, Any], texts: list[str], repeat: int
) -> tuple[dict[str, Tensor], dict[str, list[tuple[float, float]]]]:
    """Return the probabilities of every model, and (core, wall) seconds of every case and round."""
    cases: dict[str, Callable[[], Any]] = {
        f"sentence-transformers, batch {size}": partial(peer.encode, texts, batch_size=size, show_progress_bar=False)
        for size in (32, 128)
    }
    found: dict[str, Tensor] = {}
    times: dict[str, list[tuple[float, float]]] = {case: [] for case in (*cases, *models)}
    for _ in range(repeat):
        for case in times:
            run = cases[case] if case in cases else partial(fresh(models[case]).predict_proba, texts)
            wall, core = time.perf_counter(), time.process_time()
            output = run()
            times[case].append((time.process_time() - core, time.perf_counter() - wall))
            if case in models:
                found[case] = output
            print(f"{case:34} {times[case][-1][0]:8.2f} core s", flush=True)
    return found, times


def fresh(model: Any) -> Any:
    """Return the model without the tokens that it remembers."""
    if not isinstance(model, AdaptedModel):
        return model
    encoder = model.partition.encoder
    return replace(model, partition=Partition(Encoder(encoder.model, encoder.tokenizer, encoder.settings), "head"))


def row(case: str, times: dict[str, list[tuple[float, float]]], found: dict[str, Tensor], count: int) -> dict[str, Any]:
    core, wall = zip(*times[case], strict=True)
    of_core, of_wall = zip(*times[PEER], strict=True)
    figures: dict[str, Any] = {
        "case": case,
        "core_s": spread(core),
        "wall_s": spread(wall),
        "texts_per_core_s": count / statistics.median(core),
        "times_as_fast_core": spread([a / b for a, b in zip(of_core, core, strict=True)]),
        "times_as_fast_wall": spread([a / b for a, b in zip(of_wall, wall, strict=True)]),
    }
    if case in found and case != OURS:
        figures["largest_difference_of_probabilities"] = float((found[case] - found[OURS]).abs().max())
        figures["equal_labels"] = float((found[case].argmax(-1) == found[OURS].argmax(-1)).float().mean())
    return figures


def spread(values: Any) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(result: dict[str, Any]) -> None:
    print(
        f"{result['texts']} texts, {result['tokens_per_text']['mean']:.1f} tokens each; {result['threads']} threads; "
        f"features differ by {result['largest_difference_of_features']:.1e}"
    )
    print(f"{'case':34} {'texts / core s':>14}  {'times as fast (min-max)':24} probabilities, labels")
    for found in result["rows"]:
        ratio = found["times_as_fast_core"]
        text = f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"
        same = ""
        if "equal_labels" in found:
            same = f"{found['largest_difference_of_probabilities']:.1e}, {found['equal_labels']:.2%} equal"
        print(f"{found['case']:34} {found['texts_per_core_s']:14.0f}  {text:24} {same}")


if __name__ == "__main__":
    main()
