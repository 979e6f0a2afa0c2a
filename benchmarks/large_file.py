"""Large file: `quickstudy predict model/ FILE --out LABELLED` for a million rows, and the memory that it takes.

    python benchmarks/large_file.py [--rows 1000000] [--encoder tiny] [--formats .csv .parquet .jsonl] [--out FILE]
    python benchmarks/large_file.py --encoder prior --precision bf16 [--texts REF ...]

A row has a number and a short text that ends with the number, so no text comes twice. The command runs in a process of
its own. After every 4,096 rows it notes its resident memory and the peak since the last note, so that each quarter of
the rows has a peak. Then the file is labelled again, with Ctrl-C in the middle, and the same command goes on with
`--resume`. The two files must be the same, byte for byte. --encoder prior is MiniLM with the prior that is shipped. The
texts are the first words of the samples that are shipped, or of the tasks of --texts.
"""

import argparse
import csv
import filecmp
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from records import LargeFile, LargeFileRow, read, write

from quickstudy.adaptation.few import adapt_task
from quickstudy.api import adapt
from quickstudy.cli import progress
from quickstudy.cli.main import main as quickstudy_main
from quickstudy.data.reading import read_rows
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError
from quickstudy.methods.catalog import make
from quickstudy.testing.tiny import tiny_encoder, word_task
from quickstudy.versions import versions

EXAMPLES = Path(__file__).parents[1] / "examples" / "complaints.csv"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WORDS = 6  # of a text, before its number
STOPPED = 130


@dataclass(frozen=True)
class Note:
    """How far a process is: rows, seconds of wall time and of the processor, memory now and its peak since the last."""

    rows: int
    total: int
    wall_s: float
    core_s: float
    resident_mib: float
    peak_mib: float


def main() -> None:
    if sys.argv[1:2] == ["--watch"]:  # what this script starts: --watch LOG ROWS WORD-OF-THE-COMMAND ...
        watch(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--encoder", choices=("tiny", "prior"), default="tiny")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--formats", nargs="+", default=[".csv", ".parquet", ".jsonl"])
    parser.add_argument("--texts", nargs="+", metavar="REF", help="task references to take texts from")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, source = make_model(options.encoder, folder), folder / "new.csv"
        write_source(source, options.rows, options.texts or ["samples"])
        for suffix in options.formats:
            row = measure(model, source, suffix, options.encoder, options.precision)
            add_row(options.out, row)
            print(describe(row), flush=True)


def make_model(encoder: str, folder: Path) -> Path:
    """Return the folder of a model of two labels (tiny) or four."""
    if encoder == "tiny":
        return adapt_task(make("protonet", tiny_encoder()), word_task(rows=12)).save(folder / "model")
    return adapt(data=EXAMPLES).save(folder / "model")


def write_source(file: Path, rows: int, references: Sequence[str]) -> None:
    """Write a CSV file with the columns id and text."""
    splits = [split for task in load_tasks(list(references)) for split in task.splits.values()]
    texts = [" ".join(split[i].text.split()[:WORDS]) for split in splits for i in range(len(split))]
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text"])
        writer.writerows([i, f"{text} {i}"] for i, text in enumerate(islice(cycle(texts), rows)))


def measure(model: Path, source: Path, suffix: str, encoder: str, precision: str) -> LargeFileRow:
    """Label a file, then once more with Ctrl-C in the middle; both results must be right, and the same."""
    whole, stopped = (source.with_name(f"{name}{suffix}") for name in ("whole", "stopped"))
    notes = label(model, source, whole, precision)
    before, after = notes[0], notes[-1]
    check_order(whole, after.total)
    stopped_at = label(model, source, stopped, precision, stop_at=after.total // 2)[-1].rows
    label(model, source, stopped, precision, "--resume")
    row = LargeFileRow(
        encoder,
        precision,
        suffix,
        rows=after.rows,
        wall_s=after.wall_s - before.wall_s,
        core_s=after.core_s - before.core_s,
        file_mib=whole.stat().st_size / 2**20,
        before_mib=before.resident_mib,
        quarters_mib=quarters(notes),
        stopped_at=stopped_at,
        same_after_resume=filecmp.cmp(whole, stopped, shallow=False),
    )
    whole.unlink()
    stopped.unlink()
    return row


def label(model: Path, source: Path, target: Path, precision: str, *more: str, stop_at: int = 0) -> list[Note]:
    """Run the command, with Ctrl-C as soon as so many rows are written, if that is not 0. Return its notes."""
    log = target.with_name(f"{target.name}.notes")
    words = ["predict", str(model), str(source), "--out", str(target), "--precision", precision, "--json", *more]
    command = [sys.executable, __file__, "--watch", str(log), str(stop_at), *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != (STOPPED if stop_at else 0):
        raise SystemExit(f"exit code {done.returncode}: {' '.join(words)}\n{done.stderr}")
    notes = [Note(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    log.unlink()
    return notes


def watch(log: Path, stop_at: int, words: Sequence[str]) -> None:
    """Run a command of quickstudy in this process, and write a note whenever rows are written; see `label`."""

    class Watched(progress.RowProgress):
        def rows(self, done: int, total: int) -> None:
            status = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines())
            now, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
            with log.open("a", encoding="utf-8") as file:
                note = Note(done, total, time.perf_counter(), time.process_time(), now, peak)
                file.write(f"{json.dumps(vars(note))}\n")
            with suppress(OSError):  # some containers do not let a process reset its peak
                RESET.write_text("5", encoding="utf-8")
            super().rows(done, total)
            if 0 < stop_at <= done:
                signal.raise_signal(signal.SIGINT)  # what the terminal sends after Ctrl-C

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
    progress.RowProgress = Watched  # type: ignore[misc]
    sys.argv = ["quickstudy", *words]
    quickstudy_main()


def quarters(notes: Sequence[Note]) -> tuple[float, ...]:
    """Return the peak of memory in each quarter of the rows; the first one has the first pass over the file too."""
    size = notes[-1].total / 4
    return tuple(max(n.peak_mib for n in notes if i * size <= n.rows <= (i + 1) * size + 4096) for i in range(4))


def check_order(file: Path, total: int) -> None:
    """Stop if a row of the result is missing, has no label, or stands elsewhere than in the source."""
    count = 0
    for where, row in read_rows(file):
        if isinstance(row, DataError) or int(str(row["id"])) != count or not row["predicted_label"]:
            raise SystemExit(f"{where}: this is not row {count} with its label: {row}")
        count += 1
    if count != total:
        raise SystemExit(f"{file}: {count} rows of {total}")


def add_row(file: Path, row: LargeFileRow) -> None:
    """Write a row beside those of the other cases."""
    before = read(file, LargeFile).rows if file.exists() else ()
    case = row.encoder, row.precision, row.format
    write(file, LargeFile(versions(), (*(r for r in before if (r.encoder, r.precision, r.format) != case), row)))


def describe(row: LargeFileRow) -> str:
    peaks = ", ".join(f"{peak:.0f}" for peak in row.quarters_mib)
    same = "the same" if row.same_after_resume else "ANOTHER FILE"
    return (
        f"{row.encoder} {row.precision} {row.format}: "
        f"{row.rows:,} rows in {row.wall_s:.0f} s ({row.core_s:.0f} core s); "
        f"memory {row.before_mib:.0f} MiB before, peaks of the quarters {peaks} MiB; "
        f"stopped at {row.stopped_at:,} and gone on with: {same}"
    )


if __name__ == "__main__":
    main()
