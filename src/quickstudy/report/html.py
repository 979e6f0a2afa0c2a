"""HTML: what the pages share: the environment of templates, drawings inside a page, and names without local paths."""

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from quickstudy.report.number import percent, shots_text

_FOLDERS = re.compile(r"""(^|["=])(?:~|[A-Za-z]:)?[\\/](?:[^"?&]*[\\/])?(?=[^"?&\\/])""")


def environment() -> Environment:
    """Return the environment of all templates. Text from data is escaped; a name that is not there is an error."""
    pages = Environment(
        loader=PackageLoader("quickstudy.report", package_path=""),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    pages.filters |= {"breakable": breakable, "percent": percent, "public": public, "shots": shots_text}
    return pages


def inline(svg: Path, label: str) -> Markup:
    """Return a drawing as part of a page.

    Args:
        svg: The file. Its prolog and size are left out (it scales with the page), its ids are made unique by the
            file's name.
        label: What it shows, for readers who cannot see it.
    """
    text = svg.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{svg.stem}-", text)
    return Markup(f'<svg role="img" aria-label="{escape(label)}"{text.removeprefix("<svg")}')


def breakable(name: str) -> Markup:
    """Return a name that a narrow column may break between its parts, and not within a word.

    >>> breakable("samples:fin_<b>")
    Markup('samples:<wbr>fin_<wbr>&lt;b&gt;')
    """
    return Markup("<wbr>").join(re.split(r"(?<=[_:/])", name))


def public(text: str) -> str:
    """Return text without the folders of absolute paths: a page that is handed on does not tell of the machine.

    >>> public('train = ["/home/ann/few.csv", "glue:rte?path=/data/glue", "samples"]')
    'train = ["…/few.csv", "glue:rte?path=…/glue", "samples"]'
    """
    return _FOLDERS.sub(r"\1…/", text)
