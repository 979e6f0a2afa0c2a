"""Card: the README.md of a folder on the Hub: the card that the folder has, with its licence and how to get it.

What was measured, on which tasks, and which scored texts the training knew stands in the card of a run already. What a
model learned from, and its leave-one-out accuracy with the interval, stands in the card of a model.
"""

import re
from collections.abc import Iterable, Mapping

from quickstudy.errors import RunError

_FRONT = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(r"^license: *(\S+)\n", re.MULTILINE)
_SAMPLES, _GLUE, _HUB = "samples:", "glue:", "hub:"
_PRIORS = ("prior", "the prior that ships with quickstudy")
_OTHER = "not known to quickstudy; who publishes has to know"


def public_card(card: str, repository: str, licence: str | None, sources: Iterable[str]) -> str:
    r"""Return the card that is published.

    Args:
        card: The card that the folder has.
        repository: Its id on the Hub, `user/name`.
        licence: The licence that the folder is published under; None if the card names it.
        sources: What it was made from, by name: the tasks that a run was meta-trained on, or what a model started from.

    Raises:
        RunError: Nobody says the licence.

    >>> card = "---\ntags: [few-shot]\n---\n# Mine\n\n## Use\n\npredict THIS_FOLDER\n"
    >>> print(public_card(card, "ann/mine", "mit", []))
    ---
    tags: [few-shot]
    license: mit
    ---
    # Mine
    <BLANKLINE>
    ## Use
    <BLANKLINE>
    `hf download ann/mine --local-dir mine` copies the folder.
    <BLANKLINE>
    predict mine
    <BLANKLINE>
    ## Licences
    <BLANKLINE>
    | what | licence |
    |---|---|
    | this folder | mit |
    <BLANKLINE>
    """
    front = _FRONT.match(card)
    head, body = (front[1], card[front.end() :]) if front else ("", card)
    named = _LICENCE.search(head)
    licence = licence or (named[1] if named else None)
    if licence is None:
        fix = "Name it as the Hub does: --license apache-2.0, or mit, cc-by-4.0, other ..."
        raise RunError("the card names no licence, and others need to know what they may do", fix=fix)
    head = f"{_LICENCE.sub('', head)}license: {licence}\n"
    name = repository.rpartition("/")[2]
    body = body.replace("THIS_FOLDER", name)
    download = f"`hf download {repository} --local-dir {name}` copies the folder."
    if download not in body:
        body = body.replace("## Use\n", f"## Use\n\n{download}\n", 1) if "## Use\n" in body else f"{body}\n{download}\n"
    if "| licence |" not in body:
        body = (
            f"{body.rstrip()}\n\n{_licences({'this folder': licence} | {name: _licence_of(name) for name in sources})}"
        )
    return f"---\n{head}---\n{body}"


def _licences(licences: Mapping[str, str]) -> str:
    rows = "".join(f"| {what} | {licence} |\n" for what, licence in licences.items())
    return f"## Licences\n\n| what | licence |\n|---|---|\n{rows}"


def _licence_of(source: str) -> str:
    """Return what is known of the licence of a data set, or of what a model started from, by its name."""
    if source.startswith(_SAMPLES) or source in _PRIORS:
        return "apache-2.0, part of quickstudy"
    if source.startswith(_GLUE):
        return "that of the set: see nyu-mll/glue on the Hub"
    return f"see {source.removeprefix(_HUB)} on the Hub" if source.startswith(_HUB) else _OTHER
