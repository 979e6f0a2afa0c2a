"""Markdown: tables and text for a README or an issue."""

from quickstudy.report.table import Cell, Table


def markdown_table(table: Table) -> str:
    """Return a table as Markdown; the best of a line or column is bold."""
    lines = [list(map(plain_text, table.head)), ["---"] * len(table.head)]
    lines += [list(map(_cell, line)) for line in table.lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_text(text: str) -> str:
    """Return text that is neither markup nor the end of a cell."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|" else letter for letter in text)


def _cell(cell: Cell) -> str:
    return f"**{plain_text(cell.text)}**" if cell.best else plain_text(cell.text)
