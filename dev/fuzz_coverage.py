"""Fuzz with coverage: files are changed so that reading them takes new ways through the code, and each is told.

    pip install -e '.[fuzz]'                                             Linux, Python 3.11 to 3.13
    python dev/fuzz_coverage.py --format csv --seconds 600               begins with good files and tests/corpus
    python dev/fuzz_coverage.py --format csv --seconds 600 --keep csv/   goes on with what an earlier fuzz left there

What is read and what a fault is, `fuzz.py` says. Inputs that reach new code of quickstudy, or of the libraries in
Python that it reads with, are kept and changed again (atheris, https://github.com/google/atheris). Parsers in other
languages (Parquet, JSON) are not seen into. Of an Excel file the parts are changed, not the archive, whose check sums
would break. The first fault ends the fuzz with a traceback, an exit code that is not 0, and a file `crash-…`.
"""

import argparse
import os
import random
import signal
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

import atheris

with atheris.instrument_imports(include=["quickstudy", "openpyxl", "tomllib", "zipfile"]):
    from fuzz import FORMATS, GOOD, WORDS, _too_long, read

CORPUS = Path(__file__).parent.parent / "tests" / "corpus"


def main() -> int:
    """Fuzz one format in a process of its own: the fuzzer ends its process, and what it wrote is to be removed."""
    options = _options()
    with TemporaryDirectory() as scratch:
        child = os.fork()
        if not child:
            fuzz(options, Path(scratch))
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def fuzz(options: argparse.Namespace, scratch: Path) -> None:
    """Fuzz one format; the process ends with it."""
    # fuzz.py has a limit of time of its own, for which it needs the alarm of the process
    signal.signal(signal.SIGALRM, _too_long)
    file, words, seeds = (scratch / name for name in (f"input.{options.format}", "words", "seeds"))
    kept = options.keep or scratch / "kept"
    for folder in (seeds, kept):
        folder.mkdir(parents=True, exist_ok=True)
    good = [*FORMATS[options.format](), *(each.read_bytes() for each in CORPUS.glob(f"*.{options.format}"))]
    for number, content in enumerate(good):
        (seeds / str(number)).write_bytes(content)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS if len(word) < 64), encoding="utf-8")

    def read_one(content: bytes) -> None:
        file.write_bytes(content)
        outcome = read(file)
        if outcome not in GOOD:
            raise AssertionError(outcome)

    settings = {"max_total_time": options.seconds, "seed": options.seed, "max_len": 2**16, "dict": words}
    flags = [f"-{name}={value}" for name, value in (settings | {"handle_alrm": 0, "timeout": 0}).items()]
    more = {"custom_mutator": change_part} if options.format == "xlsx" else {}
    atheris.Setup([sys.argv[0], *flags, str(kept), str(seeds)], read_one, **more)
    atheris.Fuzz()


def change_part(content: bytes, size: int, seed: int) -> bytes:
    """Return an Excel file in which one part is changed; what is no archive any more is changed anywhere."""
    try:
        with ZipFile(BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError):
        parts = {}
    if not parts:
        return bytes(atheris.Mutate(content, size))
    name = random.Random(seed).choice(sorted(parts))
    parts[name] = atheris.Mutate(parts[name], len(parts[name]) + 64)
    sink = BytesIO()
    with ZipFile(sink, "w") as archive:
        for part, text in parts.items():
            archive.writestr(part, text)
    return sink.getvalue() if len(sink.getvalue()) <= size else content


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
