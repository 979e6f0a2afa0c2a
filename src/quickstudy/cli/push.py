"""The verb `push`: publish a run or a model on the Hugging Face Hub."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.ending import say_next
from quickstudy.cli.options import Json, print_json

if TYPE_CHECKING:
    from quickstudy.publishing.parcel import Parcel


def push(
    folder: Annotated[Path, typer.Argument(help="Run folder, model folder, or a folder that export wrote.")],
    to: Annotated[str, typer.Option(help="Repository on the Hub: your-name/name. It is made if it is not there.")],
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence that you publish it under, as the Hub names it.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it; a new one is private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; show what would be sent.")] = False,
    as_json: Json = False,
) -> None:
    """Publish a run or a model on the Hugging Face Hub, with its card; no texts and no local paths are sent."""
    from quickstudy.publishing.card import public_card
    from quickstudy.publishing.hub import check_repository, send
    from quickstudy.publishing.parcel import CARD, pack
    from quickstudy.storage.files import write_text

    check_repository(to)
    with TemporaryDirectory(prefix="quickstudy-push-") as scratch:
        parcel = pack(folder, Path(scratch))
        file = parcel.folder / CARD
        card = public_card(file.read_text(encoding="utf-8"), to, licence, parcel.sources)
        write_text(file, card)
        seen = "everybody can see it" if public else "private if it is new"
        if as_json:
            answer = {"repository": to, "private": not public, "files": parcel.sizes, "notes": parcel.notes}
            sent = None if dry_run else send(parcel.folder, to, f"Add {parcel.kind}", private=not public)
            print_json(answer | {"card": card, "address": sent})
            return
        _show(parcel, f"{to}: {parcel.kind}, {seen}")
        if dry_run:
            print(f"\n{card}")
            say_next("the same command without --dry-run")
            return
        address = send(parcel.folder, to, f"Add {parcel.kind}", private=not public)
        print(f"sent to {address}")
        say_next(f"look at the card on {address}")


def _show(parcel: "Parcel", what: str) -> None:
    print(what)
    for name, size in parcel.sizes.items():
        print(f"  {size / 2**20:8.2f} MiB  {name}")
    for note in parcel.notes:
        print(f"  note: {note}")
