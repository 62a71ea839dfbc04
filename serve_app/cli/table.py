"""A table that also reads well in a pipe: two spaces between columns, no frame."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.cli.output import Output
from serve_app.cli.terminal_text import harmless


def show_table(output: Output, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the rows under their header."""
    lines = table_lines(header, rows)
    output.line(lines[0], "bold")
    for line in lines[1:]:
        output.line(line)


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; no spaces at the end of a line."""
    cells = [[harmless(str(cell)).replace("\n", " ") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
