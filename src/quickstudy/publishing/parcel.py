"""Parcel: the files of a folder that may be published: what it takes to use them, and nothing beside it.

    a run               its recipe and tasks by name, what was learned, the encoder (whole or as a change), fingerprints
    a model             what its manifest lists
    an exported model   what its manifest lists
    for transformers    configuration, weights, tokenizer

A run's log, checkpoints, results and pages stay here: they may hold texts and paths. The recipe is rewritten so that
it names tasks and encoders without their places. In place of the texts goes a file of fingerprints, by which others
can find out what the run has seen. Each text file of a parcel is searched for places of this machine; one that names
such a place is not sent.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from quickstudy.config import Recipe, TasksConfig, dump_recipe
from quickstudy.data.reference import load_tasks
from quickstudy.errors import DataError, RunError
from quickstudy.evaluation.leakage.fingerprint import save_fingerprints, take_fingerprints
from quickstudy.export.onnx_model import is_exported
from quickstudy.models.adapted import is_model, start_of
from quickstudy.models.bundled import public_name
from quickstudy.report.run.card import write_card
from quickstudy.runs import Run, hide_text_places
from quickstudy.storage.files import write_text
from quickstudy.storage.layout import RunFiles, find_run_folder
from quickstudy.storage.manifest import NAME, check_manifest, files_below, listed_files, write_manifest

CARD = "README.md"
_STANDARD = ("config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt")
_READABLE = (".json", ".toml", ".md", ".txt")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
_PLACE = re.compile(r"(?<![\w:/.<])(?:/(?:[\w.@+-]+/)+[\w.@+-]+|[A-Za-z]:\\{1,2}[\w.\\-]+)")
_USERS = ("/home/", "/Users/", "/root/")  # places of some machine, whether or not it is this one


@dataclass(frozen=True, slots=True)
class Parcel:
    """What would be sent.

    Attributes:
        folder: A temporary folder that holds it.
        kind: What it is, in words.
        sources: What it was made from, by name: the tasks of a run's meta-training, or what a model started from.
        notes: What the user should know.
    """

    folder: Path
    kind: str
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file by its name."""
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        return {file.relative_to(self.folder).as_posix(): file.stat().st_size for file in files}


def pack(source: Path, folder: Path) -> Parcel:
    """Copy what may be published into an empty folder.

    Args:
        source: A run folder, a model folder, or what `quickstudy export` wrote; `prior` is the run in the package.
        folder: The empty folder.

    Raises:
        RunError: The source is none of these, is damaged, or one of its files names a place of this machine.
    """
    source = find_run_folder(source)
    if RunFiles(source).exist:
        parcel = _pack_run(Run.open(source), folder)
    elif is_model(source) or is_exported(source):
        kind = "a model" if is_model(source) else "an exported model"
        check_manifest(source, "folder", "Copy it again, or make it again.")
        _copy(source, folder, [*listed_files(source), NAME, CARD])
        parcel = Parcel(folder, kind, start_of(source) if is_model(source) else ())
    elif (source / "config.json").is_file() and (source / CARD).is_file():
        files = sorted(file.name for pattern in _STANDARD for file in source.glob(pattern) if file.is_file())
        _copy(source, folder, [*dict.fromkeys(files), CARD])
        parcel = Parcel(folder, "a model for transformers")
    else:
        fix = "Give a run folder, a model folder of quickstudy adapt, or what quickstudy export wrote."
        raise RunError("there is nothing here that can be published", where=str(source), fix=fix)
    _refuse_places(folder)
    return parcel


def _pack_run(run: Run, folder: Path) -> Parcel:
    """Copy a finished run, with a recipe that names no places."""
    run.check_finished()
    check_manifest(run.folder, "run folder", "Copy the run again, or train again.")
    notes, old, new = [], run.files, RunFiles(folder)
    write_text(new.config, dump_recipe(_public_recipe(run)))
    kept = [file for file in (old.tasks, old.learned, old.delta, old.seen, old.card) if file.is_file()]
    _copy(run.folder, folder, [file.name for file in kept])
    _copy(run.folder, folder, _encoder_files(run))
    if not new.seen.is_file():
        try:
            trained = load_tasks([*run.recipe.tasks.train, *run.recipe.tasks.validation])
            save_fingerprints(take_fingerprints(trained), new.seen)
        except DataError as error:
            notes.append(f"no fingerprints of the training texts are sent, because they cannot be read ({error.what})")
    if not old.card.is_file():
        shutil.copy(write_card(run.folder), new.card)
    if not old.results.is_file() and not old.delta.is_file():
        notes.append(f"the card has no figures: quickstudy evaluate {quote(str(run.folder))} --tasks ... first")
    files = (new.config, new.tasks, new.learned, new.encoder, new.delta, new.seen)
    write_manifest(folder, [file.name for file in files if file.exists()])
    return Parcel(folder, "a run", tuple(sorted(run.meta_train_tasks())), tuple(notes))


def _encoder_files(run: Run) -> list[str]:
    """Return the files of a run's encoder by its manifest; of a run that has none, all but notes and hidden files."""
    start = run.files.encoder.name
    if not (run.folder / NAME).is_file():
        return list(files_below(run.folder, start)) if run.files.encoder.is_dir() else []
    return [name for name in listed_files(run.folder) if name.startswith(f"{start}/")]


def _public_recipe(run: Run) -> Recipe:
    """Return the recipe of a run with tasks and encoder by name, without their places."""
    names = {"train": sorted(run.meta_train_tasks()), "validation": sorted(run.meta_validation_tasks())}
    name = public_name(run.recipe.encoder.name)
    name = Path(name).name if name.count("/") > 1 else name  # an id on the Hub has one
    encoder = run.recipe.encoder.model_copy(update={"name": name})
    tasks = TasksConfig(train=names["train"], validation=names["validation"])
    return hide_text_places(run.recipe.model_copy(update={"encoder": encoder, "tasks": tasks}))


def _copy(source: Path, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if (source / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)


def _refuse_places(folder: Path) -> None:
    """Raise `RunError` if a text file names a place of this machine."""
    for file in sorted(folder.rglob("*")):
        if file.suffix in _READABLE and file.name not in _VOCABULARIES and file.is_file():
            for place in _places(file.read_text(encoding="utf-8", errors="replace")):
                raise RunError(
                    f"it names a place of this machine, {place!r}",
                    where=file.relative_to(folder).as_posix(),
                    fix="Remove it from that file, and pack again.",
                )


def _places(text: str) -> Iterator[str]:
    """Yield the paths in a text that lead somewhere on this machine, or to a user's files on another one."""
    for match in _PLACE.finditer(text):
        place = match[0]
        if ":" in place or place.startswith(_USERS) or Path(place).exists() or Path(place).parent.is_dir():
            yield place
