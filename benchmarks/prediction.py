"""Prediction: 10,000 short texts through an adapted MiniLM, beside sentence-transformers encoding the same texts.

    python benchmarks/prediction.py [--texts REF ...] [--count 10000] [--threads N] [--repeat 3] [--onnx] [--out FILE]

Both have the same weights. sentence-transformers encodes only; quickstudy encodes and classifies, and starts every
round without cached tokens. The texts are distinct, so that nothing is gained from duplicates. Without --texts they
are made from the bundled samples: the samples themselves, then first halves of samples followed by second halves of
others until there are enough.

The cases take turns. A ratio is that of two times of one round; the file has the median over the rounds, the least and
the greatest. Times are core seconds (`process_time`), which other processes disturb least; wall time is written beside
them. Threads: as many as PyTorch takes. Before anything is timed, features must agree to 1e-5. --onnx adds ONNX
Runtime with fp32 and int8 (extra `onnx`).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from records import Prediction, PredictionRow, Spread, TokensPerText, write
from sentence_transformers import SentenceTransformer
from torch import Tensor

from quickstudy.adaptation.few import adapt_task
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.evaluation.draws import support_sets
from quickstudy.export.onnx_file import export_onnx
from quickstudy.export.onnx_model import OnnxModel
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
Model = AdaptedModel | OnnxModel


@dataclass
class Rounds:
    """What one case took in each round, and the probabilities of the last round; the peer gives none."""

    core: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    probabilities: Tensor | None = None

    def time(self, run: Callable[[], object]) -> None:
        wall, core = time.perf_counter(), time.process_time()
        output = run()
        self.core.append(time.process_time() - core)
        self.wall.append(time.perf_counter() - wall)
        self.probabilities = output if isinstance(output, Tensor) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", metavar="REF", help="task references to take texts from")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--onnx", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    texts = short_texts(options.texts, options.count)
    peer = SentenceTransformer(resolve("minilm"), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        ours = adapt(Path(folder))
        models = load_models(ours, Path(folder), onnx=options.onnx, threads=options.threads)
        difference = check_features(peer, ours, texts[:CHECKED])
        print("timing", flush=True)
        cases = measure(peer, models, texts, options.repeat)
    lengths = [len(ids) for ids in ours.partition.encoder.tokenize(map(Example, texts)).ids]
    result = Prediction(
        versions("sentence-transformers", *(["onnxruntime"] if options.onnx else [])),
        options.threads,
        len(texts),
        tuple(public_name(reference) for reference in options.texts or ["samples"]),
        TokensPerText(statistics.mean(lengths), statistics.median(lengths)),
        options.repeat,
        difference,
        tuple(row(case, cases, len(texts)) for case in cases),
    )
    write(options.out, result)
    show(result)


def short_texts(references: list[str] | None, count: int) -> list[str]:
    """Return distinct texts in a fixed random order."""
    tasks = load_tasks(references or ["samples"])
    examples = [split[i] for task in tasks for split in task.splits.values() for i in range(len(split))]
    given = list(dict.fromkeys(text for e in examples for text in (e.text, e.text_pair) if text))
    random = rng(0, "prediction benchmark")
    texts = dict.fromkeys(given[i] for i in random.permutation(len(given)))
    if not references:
        while len(texts) < count:
            first, second = (given[i].split() for i in random.integers(len(given), size=2))
            texts[" ".join([*first[: len(first) // 2], *second[len(second) // 2 :]])] = None
    if len(texts) < count:
        place = " ".join(references or ())
        raise DataError(f"there are {len(texts)} distinct texts", where=place, fix="Lower --count.")
    return list(texts)[:count]


def adapt(folder: Path) -> AdaptedModel:
    """Adapt MiniLM to 4 classes from 8 examples each; return the model as it is loaded from its folder."""
    source = load_tasks("samples:fin_complaint_type")[0]
    task = Task("complaints", {"train": ListSplit(support_sets(source, 8, 1, seed=0)[0])}, source.label_names)
    adapt_task(make("protonet", Encoder.load("minilm")), task).save(folder / "model")
    return AdaptedModel.load(folder / "model")


def load_models(adapted: AdaptedModel, folder: Path, *, onnx: bool, threads: int) -> dict[str, Model]:
    """Return the classifier in every precision."""
    models: dict[str, Model] = {
        OURS: adapted,
        "quickstudy bf16": AdaptedModel.load(folder / "model", precision="bf16"),
    }
    if onnx:
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


def measure(peer: SentenceTransformer, models: dict[str, Model], texts: list[str], repeat: int) -> dict[str, Rounds]:
    """Run every case in every round, the peer's first."""
    encode = {
        f"sentence-transformers, batch {size}": partial(peer.encode, texts, batch_size=size, show_progress_bar=False)
        for size in (32, 128)
    }
    cases = {case: Rounds() for case in (*encode, *models)}
    for _ in range(repeat):
        for case, rounds in cases.items():
            rounds.time(encode[case] if case in encode else partial(fresh(models[case]).predict_proba, texts))
            print(f"{case:34} {rounds.core[-1]:8.2f} core s", flush=True)
    return cases


def fresh(model: Model) -> Model:
    """Return the model without the tokens that it remembers."""
    if isinstance(model, OnnxModel):
        return model
    encoder = model.partition.encoder
    return replace(model, partition=Partition(Encoder(encoder.model, encoder.tokenizer, encoder.settings), "head"))


def row(case: str, cases: dict[str, Rounds], count: int) -> PredictionRow:
    rounds, peer = cases[case], cases[PEER]
    difference = equal_labels = None
    ours, others = cases[OURS].probabilities, rounds.probabilities
    if case != OURS and ours is not None and others is not None:
        difference = float((others - ours).abs().max())
        equal_labels = float((others.argmax(-1) == ours.argmax(-1)).float().mean())
    return PredictionRow(
        case,
        Spread.over(rounds.core),
        Spread.over(rounds.wall),
        count / statistics.median(rounds.core),
        Spread.over(ratios(peer.core, rounds.core)),
        Spread.over(ratios(peer.wall, rounds.wall)),
        difference,
        equal_labels,
    )


def ratios(above: Iterable[float], below: Iterable[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def show(result: Prediction) -> None:
    print(
        f"{result.texts} texts, {result.tokens_per_text.mean:.1f} tokens each; {result.threads} threads; "
        f"features differ by {result.largest_difference_of_features:.1e}"
    )
    print(f"{'case':34} {'texts / core s':>14}  {'times as fast (min to max)':26} probabilities, labels")
    for row in result.rows:
        same = ""
        if row.equal_labels is not None:
            same = f"{row.largest_difference_of_probabilities:.1e}, {row.equal_labels:.2%} equal"
        print(f"{row.case:34} {row.texts_per_core_s:14.0f}  {row.times_as_fast_core.text():26} {same}")


if __name__ == "__main__":
    main()
