"""Results: the tables of benchmarks/RESULTS.md, from the JSON files that the benchmarks beside this one write.

python benchmarks/results.py
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Found = dict[str, Any]


def main() -> None:
    parts = [
        "# Results\n\nMade by `make bench` from the JSON files in this folder; how each is measured is said in its script.\n"
    ]
    for name, (title, table) in TABLES.items():
        file = HERE / f"{name}.json"
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            parts.append(f"## {title}\n\n`{name}.py`{_where(found)}\n\n{table(found)}")
    (HERE / "RESULTS.md").write_text("\n".join(parts), encoding="utf-8")


def peers(found: Found) -> str:
    lines = []
    for case in found["cases"].values():
        floor = case["operations"] / case["rate"]
        lines += [
            f"**{case['case']}**: at least {case['operations'] / 1e9:.0f} GFLOP, {floor:.2f} s at the "
            f"{case['rate'] / 1e9:.0f} GFLOP/s that matrix products reach in the same run ({case['runs']} interleaved "
            f"runs{_where(case, ', ')})\n",
            "| | seconds | × ours (least to most) | × floor | more memory, MiB |",
            "|---|---|---|---|---|",
        ]
        for row in case["rows"]:
            low, high = row["spread"]
            ratio = f"{row['times_ours']:.2f} ({low:.2f} to {high:.2f})"
            lines.append(
                f"| {row['name']} | {row['seconds']:.2f} | {ratio} | {row['times_floor']:.2f} | {row['more_mib']:.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def gpu(found: Found) -> str:
    lines = [
        "| second-order MAML, a meta-batch | seconds | share of the matrix rate | more memory, MiB |",
        "|---|---|---|---|",
    ]
    for precision, row in found["meta_batch"].items():
        cells = f"{row['seconds']:.2f} | {row['share_of_matrix_rate']:.0%} | {row['more_mib']:.0f}"
        lines.append(f"| {precision} | {cells} |")
    return f"{found['device']}.\n\n" + "\n".join(lines) + f"\n\n{peers(found)}"


def setfit_speed(found: Found) -> str:
    rows = found["rows"]
    setfit = {(row["task"], row["draw"]): row for row in rows if row["name"] == "setfit"}
    lines = ["| | seconds | SetFit's time over this (least to most) | mean score, % |", "|---|---|---|---|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        ratios = [setfit[row["task"], row["draw"]]["seconds_adapt"] / row["seconds_adapt"] for row in own]
        spread = f"{statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})"
        score = 100 * statistics.mean(row[row["main"]] for row in own)
        seconds = statistics.median(row["seconds_adapt"] for row in own)
        lines.append(f"| {name} | {seconds:.2f} | {spread} | {score:.1f} |")
    return f"{found['shots']} examples per class, {len(setfit)} support sets.\n\n" + "\n".join(lines) + "\n"


def prediction(found: Found) -> str:
    lines = ["| | texts per core second | times as fast (least to most) | probabilities differ by | equal labels |"]
    lines.append("|---|---|---|---|---|")
    for row in found["rows"]:
        ratio = row["times_as_fast_core"]
        same = ["", ""]
        if "equal_labels" in row:
            same = [f"{row['largest_difference_of_probabilities']:.1e}", f"{row['equal_labels']:.2%}"]
        spread = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        lines.append(f"| {row['case']} | {row['texts_per_core_s']:.0f} | {spread} | {same[0]} | {same[1]} |")
    about = f"{found['texts']:,} texts of {found['tokens_per_text']['mean']:.1f} tokens, {found['threads']} threads."
    return f"{about}\n\n" + "\n".join(lines) + "\n"


def costs(found: Found) -> str:
    lines = [
        "| size | seconds per unit | R² of a straight line | MiB per unit | sampling and tokenising |",
        "|---|---|---|---|---|",
    ]
    for size, line in found["lines"].items():
        own = [row for row in found["rows"] if row["size"] == size]
        share = statistics.median(row["data_seconds"] / (row["data_seconds"] + row["seconds"]) for row in own)
        cells = f"{line['seconds_per_unit']:.3f} | {line['r2']:.3f} | {line['mib_per_unit']:.0f} | {share:.1%}"
        lines.append(f"| {size} | {cells} |")
    return "\n".join(lines) + "\n\n![time and memory against size](costs.png)\n"


def processes(found: Found) -> str:
    lines = ["| processes | threads each | seconds per episode (least to most) | peak MiB each |", "|---|---|---|---|"]
    for world, runs in found["runs"].items():
        seconds = [run["seconds_per_episode"] for run in runs]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        lines.append(f"| {world} | {runs[0]['threads']} | {spread} | {runs[-1]['peak_mib'] or 0:.0f} |")
    ratios, sums = found["throughput_ratios"], found["sum_seconds"]
    about = (
        f"Episodes per second of two processes, times those of one: {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}). Adding up {found['floats'] / 1e6:.1f} M floats takes {statistics.median(sums):.3f} s; losses "
        f"differ by {found['loss_difference']:.1e}."
    )
    return "\n".join(lines) + f"\n\n{about}\n"


def adapt_predict(found: Found) -> str:
    lines = ["| method | adapt, s (least to most) | predict 100 texts, s |", "|---|---|---|"]
    for row in found["rows"]:
        a, p = row["adapt_s"], row["predict_100_s"]
        lines.append(f"| {row['method']} | {a['median']:.2f} ({a['min']:.2f} to {a['max']:.2f}) | {p['median']:.2f} |")
    return f"8 examples of each of 4 classes; {found['threads']} threads.\n\n" + "\n".join(lines) + "\n"


TABLES: dict[str, tuple[str, Callable[[Found], str]]] = {
    "peers": ("The same meta-gradient, ours and the peers'", peers),
    "gpu": ("One GPU", gpu),
    "setfit_speed": ("Time to a classifier, beside SetFit", setfit_speed),
    "prediction": ("Prediction, beside sentence-transformers", prediction),
    "costs": ("Cost against size", costs),
    "processes": ("Two processes beside two threads", processes),
    "adapt_predict": ("Adapt and predict", adapt_predict),
}


def _where(found: Found, before: str = "; ") -> str:
    known = found.get("versions")
    if not known:
        return ""
    packages = [f"{name} {number}" for name, number in known.items() if name not in ("machine", "date")]
    return f"{before}{', '.join(packages)}; {known['machine']}, {known['date']}"


if __name__ == "__main__":
    main()
