"""Leftovers: what a killed training leaves in its run folder, and when such a folder holds nothing of worth."""

from pathlib import Path

from quickstudy.storage.files import UNFINISHED, remove_abandoned, settle_folder, surviving_folder
from quickstudy.storage.layout import RunFiles
from quickstudy.storage.lock import LOCK
from quickstudy.storage.manifest import NAME as MANIFEST
from quickstudy.training.checkpoint import STATE
from quickstudy.training.outer import BEST, LAST


def tidy(files: RunFiles) -> None:
    """Remove what a killed process left in a run folder; call it while the folder is locked."""
    for name in (LAST, BEST):
        settle_folder(files.checkpoints / name, STATE)
    settle_folder(files.encoder, "config.json")
    for folder in (files.folder, files.checkpoints, files.plots):
        remove_abandoned(folder)


def is_worthless(folder: Path) -> bool:
    """Whether a folder is a run that ended before it could be resumed, and holds nothing else.

    Its log and the checkpoint `best` of the untouched encoder do not count.
    """
    files = RunFiles(folder)
    if not files.exist or files.learned.exists() or surviving_folder(files.checkpoints / LAST, STATE):
        return False
    known = {file.name for file in (files.config, files.tasks, files.metrics, files.checkpoints)} | {LOCK, MANIFEST}
    return {path.name for path in folder.iterdir() if not path.name.endswith(UNFINISHED)} <= known
