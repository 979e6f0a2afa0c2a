"""What there is in an HTML page, for the tests of the reports."""

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "source", "base", "area", "wbr", "embed", "track"}


class Page(HTMLParser):
    """What there is in a page: tags, attributes, table rows, and tags that do not close in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.text = source, ""
        self.open: list[str] = []
        self.misplaced: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.elements: list[tuple[str, list[tuple[str, str]]]] = []
        self.rows: list[list[str]] = []
        self.best: list[str] = []
        self.scripts: list[str] = []
        self._best = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.elements.append((tag, [(name, value or "") for name, value in attrs]))
        self.attributes += self.elements[-1][1]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._best = ("class", "best") in attrs

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1:] != [tag]:
            self.misplaced.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] in (["style"], ["script"]):
            self.scripts += [data] if self.open[-1] == "script" else []
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
            if self._best:
                self.best.append(data)


def parse(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))
