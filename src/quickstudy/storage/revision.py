"""Revision: which commit of a repository of the Hugging Face Hub is meant, so that a run loads the same files later.

    "main", "v1.0", "refs/pr/3"   a branch, a tag or a pull request: may be another commit tomorrow
    40 hexadecimal digits         a commit: its files never change

The Hub is asked which commit a branch or a tag is. Where it is out of reach or switched off, the answer is the commit
that was downloaded last under that name, which the Hub's library notes in its cache.
"""

import re
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 30  # the Hub has so long to answer


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is the hash of a commit.

    >>> is_commit("main"), is_commit("1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
    (False, True)
    """
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def find_commit(repository: str, revision: str | None, kind: Kind) -> str | None:
    """Return the hash of the commit that a revision of a repository is.

    Args:
        repository: Its id, e.g. `nyu-mll/glue`.
        revision: A branch, a tag, or a commit; None for the main branch.
        kind: What the repository holds.

    Returns:
        The hash; None if neither the Hub nor its cache on this machine knows it.
    """
    if is_commit(revision):
        return revision
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    if not constants.HF_HUB_OFFLINE:
        try:
            return HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=_SECONDS).sha
        except Exception:
            pass
    try:
        refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type=kind) / "refs"
        noted = (refs / (revision or constants.DEFAULT_REVISION)).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # not noted, or no id at all: the path of a folder that is not there
        return None
    return noted if is_commit(noted) else None
