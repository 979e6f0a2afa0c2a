"""Fuzz: broken files of every format are read, and each gives its rows or one error that names the file.

    python dev/fuzz.py --inputs 10000                  of each format; about ten minutes on one core
    python dev/fuzz.py --inputs 100 --formats csv      the short form

An input is a good file with some random changes: bits, bytes, parts and words that parsers stumble over. What raises
another error, takes more than ten seconds, or gives a message without the file's name is a fault; `--keep` says where
such inputs are written, and tests/corpus has those of the past. Exits with 1 if there is a fault.
"""

import argparse
import io
import json
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.config import load_recipe
from quickstudy.data.columns import Columns
from quickstudy.data.table import read_checked_rows
from quickstudy.errors import QuickstudyError

LIMIT = 10  # seconds for one input
ROWS = [{"text": f"a late fee, number {i}", "label": "ab"[i % 2], "score": i / 3} for i in range(20)]
RECIPE = b"""\
name = "fuzz"
seed = 3
[encoder]
name = "minilm"
max_length = 64
[method]
name = "maml"
inner_steps = 2
inner_lr = 0.1
[tasks]
train = ["samples:meta-train"]
validation = ["samples:meta-validation"]
[episodes]
n_way = [2, 3]
k_shot = 2
n_query = 2
[outer]
outer_steps = 10
outer_lr = 1e-4
"""
WORDS = (
    *(
        b'"',
        b'""',
        b"'",
        b",",
        b"\t",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x1b",
        b"\\",
    ),
    *(b"{", b"}", b"[", b"]", b":", b"=", b"#", b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000),
    *(b"\\ud83d", b'"""', b"text", b"label", b"text,label\n", b"[[a]]", b"a.b.c = 1\n", b"1979-05-27", b"\xc2\x85"),
)


def main() -> int:
    """Run the fuzzer, and print how many inputs of each format were read, and how many were refused."""
    options = _options()
    chooser, faults = random.Random(options.seed), []
    signal.signal(signal.SIGALRM, _too_long)
    with TemporaryDirectory() as scratch:
        for name in options.formats:
            seeds, outcomes = FORMATS[name](), Counter[str]()
            for number in range(options.inputs):
                file = Path(scratch) / f"input.{name}"
                file.write_bytes(mutate(chooser.choice(seeds), chooser))
                outcome = read(file)
                outcomes[outcome if outcome in GOOD else "fault"] += 1
                if outcome not in GOOD:
                    faults.append(f"{name}, input {number}: {outcome}")
                    if options.keep:
                        options.keep.mkdir(exist_ok=True)
                        (options.keep / f"{number}.{name}").write_bytes(file.read_bytes())
            print(f"{name:8} {options.inputs:,} inputs: {dict(sorted(outcomes.items()))}", flush=True)
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


GOOD = ("read", "refused")


def read(file: Path) -> str:
    """Read a file as its suffix says; return `read`, `refused`, or what is wrong with how that ended."""
    signal.alarm(LIMIT)
    try:
        if file.suffix == ".toml":
            load_recipe(file)
        else:
            for _ in read_checked_rows(file, Columns(), labelled=True):
                pass
    except QuickstudyError as error:
        return "refused" if file.name in str(error) else f"a message without the file: {error}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return "read"


def mutate(content: bytes, chooser: random.Random) -> bytes:
    """Return a file with one to eight changes."""
    changed = bytearray(content)
    for _ in range(chooser.choice((1, 1, 2, 3, 8))):
        start = chooser.randrange(len(changed) + 1)
        end = min(len(changed), start + chooser.choice((1, 2, 8, 64)))
        kind = chooser.randrange(6)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << chooser.randrange(8)
        elif kind == 1:
            changed[start:end] = bytes(chooser.randrange(256) for _ in range(end - start))
        elif kind == 2:
            del changed[start:end]
        elif kind == 3:
            changed[start:start] = changed[start:end] * chooser.choice((1, 2, 50))
        elif kind == 4:
            del changed[start:]
        else:
            changed[start:start] = chooser.choice(WORDS)
    return bytes(changed)


def _delimited(delimiter: str) -> list[bytes]:
    lines = [delimiter.join(ROWS[0]), *(delimiter.join(f'"{value}"' for value in row.values()) for row in ROWS)]
    text = "\n".join(lines) + "\n"
    return [text.encode(), text.encode("utf-8-sig"), text.encode("utf-16"), text.replace('"', "").encode()]


def _parquet() -> list[bytes]:
    files = []
    for options in ({}, {"compression": "none", "use_dictionary": False}, {"row_group_size": 3}):
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(ROWS), sink, **options)
        files.append(sink.getvalue())
    return files


def _excel() -> list[bytes]:
    from openpyxl import Workbook

    book, sink = Workbook(), io.BytesIO()
    for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS)]:
        book.active.append(row)
    book.save(sink)
    return [sink.getvalue()]


FORMATS: dict[str, Callable[[], Sequence[bytes]]] = {
    "csv": lambda: _delimited(","),
    "tsv": lambda: _delimited("\t"),
    "jsonl": lambda: ["".join(f"{json.dumps(row)}\n" for row in ROWS).encode()],
    "json": lambda: [
        json.dumps(ROWS).encode(),
        json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode(),
    ],
    "parquet": _parquet,
    "xlsx": _excel,
    "toml": lambda: [RECIPE],
}


def _too_long(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeoutError(f"it took more than {LIMIT} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
