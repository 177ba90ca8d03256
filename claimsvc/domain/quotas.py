"""Quotas: how often somebody may ask within some time."""

import re
from dataclasses import dataclass
from typing import Self

_FORM = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,4})", re.ASCII)
_MAX_REQUESTS = 100_000
_MAX_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests within so many seconds, of each of those that `name` tells apart."""

    name: str
    requests: int
    seconds: int

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """A quota as the settings have it: `10/60` are 10 requests within 60 seconds.

        Raises:
            ValueError: it is none; the message says what it should be.
        """
        found = _FORM.fullmatch(text)
        if found is None or int(found[1]) > _MAX_REQUESTS or int(found[2]) > _MAX_SECONDS:
            raise ValueError(
                "must look like 10/60, which is 10 requests within 60 seconds; "
                f"at most {_MAX_REQUESTS} within {_MAX_SECONDS}"
            )
        return cls(name, int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class QuotaStanding:
    """Where somebody stands after a request: it was refused if `is_exceeded`, and counted otherwise.

    `remaining` are the requests that may follow at once, and `seconds` how long there will be no more than those.
    """

    quota: Quota
    is_exceeded: bool
    remaining: int
    seconds: float
