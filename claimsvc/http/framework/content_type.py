"""The header `Content-Type` (RFC 9110, section 8.3), parsed in linear time.

aiohttp's `request.content_type` runs the e-mail parser of the standard library, which takes quadratic time and raises
`RecursionError` for many parentheses: one header of 8 KB stalled every client.
"""

import re
from typing import NamedTuple

from aiohttp import hdrs, web

# Longer than any media type that this service accepts, with its parameters.
_MAX_CHARACTERS = 256
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"[ \t]*({_WORD}/{_WORD})")
# Each alternative begins with a different character, so no text is matched in two ways. The value may be missing,
# because clients send `application/json; utf-8`; and so may the parameter.
_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*(?:({_WORD})(?:[ \t]*=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)"))?)?',
)


class ContentType(NamedTuple):
    """A parsed `Content-Type`, in lower case.

    Args:
        media_type: such as `text/csv`; empty if the header is absent or malformed.
        charset: the parameter `charset`; None if there is none.
    """

    media_type: str
    charset: str | None = None


_NONE = ContentType("")


def content_type_of(request: web.Request) -> ContentType:
    """The content type of the request's body."""
    return parse(request.headers.get(hdrs.CONTENT_TYPE, ""))


def parse(header: str) -> ContentType:
    """Parse the value of the header.

    A value that is too long, malformed, or names two charsets has no media type: programs would understand it
    differently.
    """
    found = _MEDIA_TYPE.match(header) if len(header) <= _MAX_CHARACTERS else None
    if found is None:
        return _NONE
    charset, place, end = None, found.end(), len(header.rstrip(" \t"))
    while place < end:
        parameter = _PARAMETER.match(header, place)
        if parameter is None:
            return _NONE
        place = parameter.end()
        name, token, quoted = parameter.groups()
        value = token if quoted is None else quoted.replace("\\", "")
        if name is not None and name.lower() == "charset" and value is not None:
            if charset is not None:
                return _NONE
            charset = value.lower()
    return ContentType(found[1].lower(), charset)
