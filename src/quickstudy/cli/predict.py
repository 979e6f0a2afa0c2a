"""The verb `predict`: label texts with an adapted model, on the terminal or into a file."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.ending import say_next
from quickstudy.cli.options import Json, PairColumn, SkipBadRows, TextColumn, print_json
from quickstudy.cli.prediction import Prediction
from quickstudy.cli.terminal import say
from quickstudy.errors import DataError, RecipeError
from quickstudy.importing import quick_imports

if TYPE_CHECKING:
    from quickstudy.data.columns import Columns
    from quickstudy.export.onnx_model import OnnxModel
    from quickstudy.models.adapted import AdaptedModel
    from quickstudy.tasks.split import Example

_OUT = "Write label and probabilities beside the columns of the file: .csv, .tsv, .jsonl, .parquet or .xlsx."

_AFTER_FILE = "check the rows of lowest probability, add them with the right label to your examples, and adapt again"
_AFTER_NUMBERS = "check some rows, add the wrong ones with the right number to your examples, and adapt again"


def predict(
    model: Annotated[Path, typer.Argument(help="Model folder, or one that export wrote.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts, or a data file, or - for standard input.")] = None,
    pair: Annotated[list[str] | None, typer.Option(help="Second text of each text, if the model reads pairs.")] = None,
    data: Annotated[Path | None, typer.Option(help="File with the texts; labels are not needed.")] = None,
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Label the rows that --out does not have yet.")] = False,
    text_column: TextColumn = "auto",
    pair_column: PairColumn = "auto",
    skip_bad_rows: SkipBadRows = False,
    precision: Annotated[str, typer.Option(help="fp32, or bf16: faster where the processor has it.")] = "fp32",
    as_json: Json = False,
) -> None:
    """Label texts, or a file of any size, with an adapted model; probabilities beside (step 4)."""
    source, texts = _source(data, texts or [], out)
    if (source is None) == (not texts):
        fix = 'Write: quickstudy predict model/ "a text", or: quickstudy predict model/ FILE'
        raise DataError("give texts or a file, one of the two", fix=fix)
    if pair and source:
        fix = "Leave it out, and name the column of the file: --pair-column NAME."
        raise DataError("--pair is for texts on the command line, not for a file", fix=fix)
    if pair and len(pair) != len(texts):
        raise DataError(f"{len(texts)} texts but {len(pair)} --pair", fix="Give one --pair per text.")
    _refuse_useless(source, out, {"overwrite": overwrite, "resume": resume}, skip_bad_rows)
    from quickstudy.data.columns import Columns

    columns = Columns(text_column, pair_column)
    if source is None:
        from quickstudy.tasks.split import Example

        examples = [Example(text, second) for text, second in zip_longest(texts, pair or ())]
        _print(_load(model, precision), examples, as_json)
        _say_next(f"quickstudy predict {quote(str(model))} FILE --out labelled.csv", as_json)
        return
    with _opened(source) as file:
        if out:
            places = (file, out, overwrite, resume)
            _write(model, precision, places, columns, skip_bad_rows=skip_bad_rows, as_json=as_json)
        else:
            from quickstudy.data.texts import read_texts

            examples = read_texts(file, text_column, pair_column, skip_bad_rows=skip_bad_rows)
            _print(_load(model, precision), examples, as_json)
            _say_next(f"quickstudy predict {quote(str(model))} {quote(str(source))} --out labelled.csv", as_json)


def _source(data: Path | None, texts: list[str], out: Path | None) -> tuple[Path | None, list[str]]:
    """Return the file that is given, if any, and the texts; a single text may be the name of a file."""
    if data or len(texts) != 1:
        return data, texts
    from quickstudy.data.source import find_format
    from quickstudy.data.stdin import is_piped

    word, is_there = texts[0], False
    with suppress(OSError):  # a long text is no name of a file
        is_there = Path(word).is_file()
    is_name = bool(Path(word).suffix) if is_there else find_format(Path(word)) is not None and " " not in word
    return (Path(word), []) if is_piped(word) or out or is_name else (None, texts)


def _refuse_useless(source: Path | None, out: Path | None, options: dict[str, bool], skip_bad_rows: bool) -> None:
    """Refuse options that would change nothing."""
    if out and source is None:
        raise DataError("--out is for a file of texts", fix="Write: quickstudy predict model/ FILE --out labelled.csv")
    if given := next((name for name, value in options.items() if value and not out), None):
        raise DataError(f"--{given} goes with --out", fix=f"Add --out, or leave out --{given}.")
    if skip_bad_rows and source is None:
        raise DataError("--skip-bad-rows is for a file of texts", fix="Leave it out, or give a file.")


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """Give the path of a file; of what is piped in, that of a copy."""
    from quickstudy.data.stdin import is_piped, piped_input

    if is_piped(source):
        with piped_input(source) as file:
            yield file
    else:
        yield source


def _write(
    model: Path,
    precision: str,
    places: tuple[Path, Path, bool, bool],
    columns: "Columns",
    *,
    skip_bad_rows: bool,
    as_json: bool,
) -> None:
    """Label a file into another, and say what is in it."""
    from quickstudy.cli.label_file import Places, describe_rest, label_file, refuse_target
    from quickstudy.cli.progress import RowProgress
    from quickstudy.report.number import counted

    files = Places(*places)
    refuse_target(files)  # before the model is read, which takes a while
    loaded = _load(model, precision)
    with RowProgress(quiet=as_json) as progress:
        done = label_file(loaded, files, columns, skip_bad_rows=skip_bad_rows, on_rows=progress.rows)
    _say_cut(loaded, done.cut)
    if done.interrupted:
        say(f"stopped: {describe_rest(files, done)}", file=sys.stderr)
        raise typer.Exit(130)
    if as_json:
        print_json({"out": str(files.target), "rows": done.rows, "cut": done.cut, "labels": done.labels})
    else:
        counts = ", ".join(f"{label} {count:,}" for label, count in done.labels.most_common(10))
        more = f" and {len(done.labels) - 10} more labels" if len(done.labels) > 10 else ""
        say(f"{files.target}: {counted(done.rows, 'row')}{f'; {counts}{more}' if counts else ''}")
    _say_next(_AFTER_FILE if loaded.kind == "classification" else _AFTER_NUMBERS, as_json)


def _load(folder: Path, precision: str) -> "AdaptedModel | OnnxModel":
    with quick_imports():
        from quickstudy.export.onnx_model import OnnxModel, is_exported
        from quickstudy.models.adapted import AdaptedModel

    if not is_exported(folder):
        return AdaptedModel.load(folder, precision=precision)
    if precision != "fp32":
        fix = "Leave out --precision, or predict with the model that it was exported from."
        raise RecipeError("an exported model has the precision it was exported in", where=str(folder), fix=fix)
    return OnnxModel.load(folder)


def _print(model: "AdaptedModel | OnnxModel", examples: "Sequence[Example]", as_json: bool) -> None:
    """Print the predictions of texts."""
    from quickstudy.cli.tables import print_predictions

    predictions = _predict(model, examples)
    _say_cut(model, model.count_cut(examples))
    if as_json:
        print_json([prediction.to_json() for prediction in predictions])
    else:
        print_predictions(predictions)


def _say_next(what: str, as_json: bool) -> None:
    if not as_json:
        say_next(what)


def _say_cut(model: "AdaptedModel | OnnxModel", cut: int) -> None:
    """Say how many texts were not read to their end."""
    if cut:
        from quickstudy.models.tokens import describe_cut

        say(describe_cut(cut, model.max_length), file=sys.stderr)


def _predict(model: "AdaptedModel | OnnxModel", examples: "Sequence[Example]") -> list[Prediction]:
    if model.kind == "regression":
        values: list[str] | list[float] = model.predict(examples)
        return [Prediction(example.text, values[i]) for i, example in enumerate(examples)]
    predictions = []
    for example, chances in zip(examples, model.predict_proba(examples), strict=True):
        label = model.label_names[int(chances.argmax())]
        rounded = [round(chance, 6) for chance in chances.tolist()]
        predictions.append(Prediction(example.text, label, dict(zip(model.label_names, rounded, strict=True))))
    return predictions
