"""Command line: the five steps as verbs, one file a verb; here are the application, its errors and its exit codes.

Heavy imports wait until a verb needs them.

Exit codes: 0 done, 1 doctor says that quickstudy cannot work here, 2 something wrong with the input (one message, no
traceback), 130 interrupted, 143 terminated.
"""

import atexit
import gc
import logging
import os
import sys
import traceback
from typing import Annotated

import typer

from quickstudy.cli.adapt import adapt
from quickstudy.cli.compare import compare
from quickstudy.cli.doctor import doctor
from quickstudy.cli.evaluate import evaluate
from quickstudy.cli.export import export
from quickstudy.cli.init import init
from quickstudy.cli.predict import predict
from quickstudy.cli.pretrain import pretrain
from quickstudy.cli.push import push
from quickstudy.cli.recommend import recommend
from quickstudy.cli.report import report
from quickstudy.cli.tasks import tasks
from quickstudy.cli.terminal import accept_all_characters, say
from quickstudy.errors import QuickstudyError

# Read by the libraries below when they are first imported: quiet on the terminal.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

app = typer.Typer(
    name="quickstudy",
    help="Meta-pretrain a language encoder so that it learns new text classes from a handful of labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; the entry point."""
    accept_all_characters()
    notes, log = _Notes(), logging.getLogger("quickstudy")
    log.addHandler(notes)
    log.setLevel(logging.INFO)
    atexit.register(gc.freeze)  # at its end Python searches for garbage, for half a second, and finds none
    try:
        app()
    except QuickstudyError as error:
        _say(str(error), error)
        sys.exit(2)
    except OSError as error:  # a full disk, a missing permission
        place = f"{error.filename}: " if error.filename else ""
        _say(f"{place}{error.strerror or error}\n  Check space and permissions.", error)
        sys.exit(2)
    finally:
        log.removeHandler(notes)


class _Notes(logging.Handler):
    """Says what the library notes, e.g. which columns it took, once each, on standard error of the main process."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        from quickstudy.processes import is_main

        note = record.getMessage()
        if note not in self._said and is_main():
            self._said.add(note)
            say(note, file=sys.stderr)


def _say(message: str, error: Exception) -> None:
    """Print an error in the main process, and in each process that has lost contact with another.

    A mistake in quickstudy itself also shows its traceback, in the process where it happened.
    """
    from quickstudy.processes import ContactError, ProcessError, is_main, leave

    lost = isinstance(error, ContactError)
    ours = isinstance(error, ProcessError) and not lost and error.__cause__
    if ours and not isinstance(ours, QuickstudyError | OSError):
        traceback.print_exception(ours)
    if lost or is_main():
        say(f"error: {message}", file=sys.stderr)
    if not lost:
        leave()


def _version(wanted: bool) -> None:
    if wanted:
        from quickstudy._version import __version__

        say(f"quickstudy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing to do: the verbs are below."""


for verb in (doctor, init, tasks, pretrain, adapt, predict, export, push, evaluate, compare, recommend, report):
    app.command()(verb)


if __name__ == "__main__":
    main()
