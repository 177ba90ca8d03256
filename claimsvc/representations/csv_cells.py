"""Cells of CSV that no spreadsheet takes for a formula, and that can be read back exactly.

A spreadsheet takes text that begins with `=`, `+`, `-` or `@` for a formula. It may also split the file at `;` in place
of `,`, whatever is quoted. So such a cell, and one with a `;`, begins with an apostrophe, and has `%3B` for `;` and
`%25` for `%`. A cell whose text begins with an apostrophe gets another one, so that no two texts look the same.
PostgreSQL writes the cells of exports in this form; see `claimsvc/postgres/exports.py`.
"""

import re

_NEEDS_GUARD = re.compile(r"[-=+@\t\r']|[^;]*;")
_ESCAPED = re.compile(r"%3B|%25")
_CHARACTERS = {"%3B": ";", "%25": "%"}


def guarded(text: str) -> str:
    """Return the cell that stands for a text."""
    if not _NEEDS_GUARD.match(text):
        return text
    return "'" + text.replace("%", "%25").replace(";", "%3B")


def unguarded(cell: str) -> str:
    """Return the text that a cell stands for.

    A cell that `guarded` would not have made, such as `'ann`, was written by others, and stands for itself.
    """
    if not cell.startswith("'"):
        return cell
    text = _ESCAPED.sub(lambda found: _CHARACTERS[found[0]], cell[1:])
    return text if guarded(text) == cell else cell
