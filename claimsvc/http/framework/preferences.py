"""The header `Prefer` (RFC 7240), parsed in linear time: what a client would like, if the service can do it.

Preferences that are unknown are ignored, as the RFC says, and so is the rest of a header that is malformed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web
from multidict import istr

PREFER = istr("Prefer")
PREFERENCE_APPLIED = istr("Preference-Applied")
RESPOND_ASYNC = "respond-async"

# More than all registered preferences together. What comes behind is ignored.
_MAX_CHARACTERS = 1024
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# A separator, or a name that may have a value. The first character decides which, so no text is matched in two ways.
_PART = re.compile(rf'[ \t]*(?:([,;])|({_WORD})(?:[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)"))?)')
_ESCAPED = re.compile(r"\\(.)")
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a request prefers, as far as the service knows it.

    Args:
        respond_async: to be answered at once, and told the outcome later.
        wait_seconds: how long the client is ready to wait; None if it does not say.
    """

    respond_async: bool = False
    wait_seconds: int | None = None


def preferences_of(request: web.Request) -> Preferences:
    """What the request prefers."""
    return parse(request.headers.getall(PREFER, ()))


def parse(headers: Sequence[str]) -> Preferences:
    """Parse the values of all headers `Prefer` of a request. Of a preference that is given twice, the first counts."""
    found: dict[str, str] = {}
    left = _MAX_CHARACTERS
    for header in headers:
        for name, value in _preferences_in(header[:left]):
            found.setdefault(name, value)
        left -= len(header)
        if left <= 0:
            break
    seconds = _SECONDS.fullmatch(found.get("wait", ""))
    return Preferences(found.get(RESPOND_ASYNC) == "", None if seconds is None else int(seconds[0]))


def _preferences_in(header: str) -> list[tuple[str, str]]:
    """The names, in lower case, and the values of a header's preferences; their parameters are left out."""
    found: list[tuple[str, str]] = []
    place, end, begins, is_parameter = 0, len(header.rstrip(" \t")), True, False
    while place < end:
        part = _PART.match(header, place)
        if part is None:
            break
        separator, name, word, quoted = part.groups()
        if separator is not None:
            begins, is_parameter = True, separator == ";"
        elif not begins:
            break
        else:
            begins = False
            if not is_parameter:
                found.append((name.lower(), _ESCAPED.sub(r"\1", quoted) if quoted is not None else word or ""))
        place = part.end()
    return found
