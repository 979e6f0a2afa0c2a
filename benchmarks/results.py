"""Results: the tables of benchmarks/RESULTS.md, from the JSON files that the benchmarks beside this file write.

python benchmarks/results.py [--out benchmarks/RESULTS.md]
"""

import argparse
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from records import (
    AdaptPredict,
    Costs,
    Gpu,
    PeerCase,
    PeerRow,
    Peers,
    Prediction,
    PredictionRow,
    Processes,
    SetFitSpeed,
    Spread,
    read,
)
from startup import StartUp

HERE = Path(__file__).parent
HEAD = """# Results

Made by `make bench` from the JSON files in this folder; each script says how it measures.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args()
    sections = (
        section(HERE / f"{name}.json") for name, section in SECTIONS.items() if (HERE / f"{name}.json").exists()
    )
    page = "\n".join([HEAD, *sections])
    options.out.write_text("\n".join(map(wrapped, page.split("\n"))), encoding="utf-8")


def wrapped(line: str) -> str:
    """Return a line of prose in lines of at most 119 characters; rows of tables stay whole."""
    return line if line.startswith("|") else textwrap.fill(line, 119, break_long_words=False, break_on_hyphens=False)


def peers(file: Path) -> str:
    result = read(file, Peers)
    return titled("The same meta-gradient, ours and the peers'", file, peer_tables(result.cases.values()))


def peer_tables(cases: Iterable[PeerCase]) -> str:
    lines = []
    for case in cases:
        floor = case.operations / case.rate
        lines += [
            f"**{case.case}**: at least {case.operations / 1e9:.0f} GFLOP, {floor:.2f} s at the "
            f"{case.rate / 1e9:.0f} GFLOP/s that matrix products reach in the same run ({case.runs} interleaved "
            f"runs{described(case.versions, ', ')})\n",
            "| | seconds | × ours (least to most) | × floor | more memory, MiB |",
            "|---|---|---|---|---|",
            *map(peer_line, case.rows),
            "",
        ]
    return "\n".join(lines)


def peer_line(row: PeerRow) -> str:
    ratio = Spread(row.times_ours, *row.spread).text()
    return f"| {row.name} | {row.seconds:.2f} | {ratio} | {row.times_floor:.2f} | {row.more_mib:.0f} |"


def gpu(file: Path) -> str:
    result = read(file, Gpu)
    lines = [
        "| second-order MAML, a meta-batch | seconds | share of the matrix rate | more memory, MiB |",
        "|---|---|---|---|",
    ]
    for precision, cost in result.meta_batch.items():
        lines.append(f"| {precision} | {cost.seconds:.2f} | {cost.share_of_matrix_rate:.0%} | {cost.more_mib:.0f} |")
    text = f"{result.device}.\n\n" + "\n".join(lines) + f"\n\n{peer_tables(result.cases.values())}"
    return titled("One GPU", file, text, result.versions)


def setfit_speed(file: Path) -> str:
    result = read(file, SetFitSpeed)
    lines = ["| | seconds | SetFit's time over this (least to most) | mean score, % |", "|---|---|---|---|"]
    for name, rows in result.by_name().items():
        score = 100 * statistics.mean(row.main_score for row in rows)
        seconds = statistics.median(row.seconds_adapt for row in rows)
        lines.append(f"| {name} | {seconds:.2f} | {result.times_as_fast(name).text(0)} | {score:.1f} |")
    support_sets = len(result.by_name()["setfit"])
    text = f"{result.shots} examples per class, {support_sets} support sets.\n\n" + "\n".join(lines) + "\n"
    return titled("Time to a classifier, beside SetFit", file, text, result.versions)


def prediction(file: Path) -> str:
    result = read(file, Prediction)
    lines = [
        "| | texts per core second | times as fast (least to most) | probabilities differ by | equal labels |",
        "|---|---|---|---|---|",
        *map(prediction_line, result.rows),
    ]
    about = f"{result.texts:,} texts of {result.tokens_per_text.mean:.1f} tokens, {result.threads} threads."
    text = f"{about}\n\n" + "\n".join(lines) + "\n"
    return titled("Prediction, beside sentence-transformers", file, text, result.versions)


def prediction_line(row: PredictionRow) -> str:
    difference = (
        "" if row.largest_difference_of_probabilities is None else f"{row.largest_difference_of_probabilities:.1e}"
    )
    equal = "" if row.equal_labels is None else f"{row.equal_labels:.2%}"
    return f"| {row.case} | {row.texts_per_core_s:.0f} | {row.times_as_fast_core.text()} | {difference} | {equal} |"


def costs(file: Path) -> str:
    result = read(file, Costs)
    lines = [
        "| size | seconds per unit | R² of a straight line | MiB per unit | sampling and tokenising |",
        "|---|---|---|---|---|",
    ]
    for size, line in result.lines.items():
        data = statistics.median(point.data_fraction for point in result.points(size))
        cells = f"{line.seconds_per_unit:.3f} | {line.r2:.3f} | {line.mib_per_unit:.0f} | {data:.1%}"
        lines.append(f"| {size} | {cells} |")
    text = "\n".join(lines) + "\n\n![time and memory against size](costs.png)\n"
    return titled("Cost against size", file, text, result.versions)


def processes(file: Path) -> str:
    result = read(file, Processes)
    lines = ["| processes | threads each | seconds per episode (least to most) | peak MiB each |", "|---|---|---|---|"]
    for world_size, runs in result.runs.items():
        seconds = Spread.over(run.seconds_per_episode for run in runs).text()
        lines.append(f"| {world_size} | {runs[0].threads} | {seconds} | {runs[-1].peak_mib or 0:.0f} |")
    text = "\n".join(lines) + (
        f"\n\nEpisodes per second of two processes, times those of one: "
        f"{Spread.over(result.throughput_ratios).text()}. "
        f"Adding up {result.floats / 1e6:.1f} M floats takes {statistics.median(result.sum_seconds):.3f} s; losses "
        f"differ by {result.loss_difference:.1e}.\n"
    )
    return titled("Two processes beside two threads", file, text, result.versions)


def adapt_predict(file: Path) -> str:
    result = read(file, AdaptPredict)
    lines = ["| method | adapt, s (least to most) | predict 100 texts, s |", "|---|---|---|"]
    lines += [f"| {row.method} | {row.adapt_s.text()} | {row.predict_100_s.median:.2f} |" for row in result.rows]
    text = f"8 examples of each of 4 classes; {result.threads} threads.\n\n" + "\n".join(lines) + "\n"
    return titled("Adapt and predict", file, text, result.versions)


def startup(file: Path) -> str:
    result = read(file, StartUp)
    lines = ["| what | on the processor, s (least to most) | wall, s |", "|---|---|---|"]
    lines += [
        f"| {row.what} {row.source} | {row.processor_s.text()} | {row.wall_s.median:.2f} |" for row in result.rows
    ]
    text = f"Median of {result.rounds} rounds with one thread; {result.cores} cores, on which {result.load:.1f} "
    return titled("Start-up", file, f"{text}processes ran or waited.\n\n" + "\n".join(lines) + "\n", result.versions)


SECTIONS: dict[str, Callable[[Path], str]] = {
    "peers": peers,
    "gpu": gpu,
    "setfit_speed": setfit_speed,
    "prediction": prediction,
    "costs": costs,
    "processes": processes,
    "adapt_predict": adapt_predict,
    "startup": startup,
}


def titled(title: str, file: Path, text: str, versions: Mapping[str, str] | None = None) -> str:
    return f"## {title}\n\n`{file.stem}.py`{described(versions)}\n\n{text}"


def described(versions: Mapping[str, str] | None, before: str = "; ") -> str:
    """Return with what, where and when figures were made."""
    if not versions:
        return ""
    packages = [f"{name} {number}" for name, number in versions.items() if name not in ("machine", "date")]
    return f"{before}{', '.join(packages)}; {versions['machine']}, {versions['date']}"


if __name__ == "__main__":
    main()
