"""Quotas: how many requests a user or address may send in a period."""

import re
from dataclasses import dataclass
from typing import Self

_FORM = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,4})", re.ASCII)
_MAX_REQUESTS = 100_000
_MAX_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit on the requests of each subject.

    Args:
        name: the kind of subject, such as `user`.
        requests: the limit.
        seconds: the period to which it applies.
    """

    name: str
    requests: int
    seconds: int

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """Parse a quota of the settings: `10/60` is 10 requests within 60 seconds.

        Raises:
            ValueError: it is not valid; the message states the format.
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
    """The state of a quota for one subject after a request.

    Args:
        quota: the quota.
        is_exceeded: whether the request was refused; otherwise it was counted.
        remaining: how many requests may follow immediately.
        seconds: until more than `remaining` requests are possible.
    """

    quota: Quota
    is_exceeded: bool
    remaining: int
    seconds: float
