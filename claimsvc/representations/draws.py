"""The draw of a queue, as anybody can check it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field

from claimsvc import domain
from claimsvc.representations.fields import CouponName

_DIGEST = {"pattern": "^[0-9a-f]{64}$"}
_EXAMPLE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@dataclass(frozen=True, slots=True)
class DrawBody:
    """The draw of a queue. Before it, `seed` is null and there are no entries.

    An entry is the SHA-256 digest of a ticket's id, as text in lower case. Their order is that of the SHA-256 digests
    of the seed's 32 bytes followed by the entry's 32 bytes. `position` is that of the first entry of the
    page, from 1.
    """

    coupon_name: CouponName
    seed_hash: Annotated[
        str,
        Field(
            description="the SHA-256 digest of the seed, in hex; published when the coupon gets its queue",
            json_schema_extra=_DIGEST,
            examples=[_EXAMPLE],
        ),
    ]
    seed: Annotated[str | None, Field(description="in hex; null before the draw", examples=[_EXAMPLE])]
    drawn_at: datetime | None
    position: Annotated[int, Field(ge=1, examples=[1])]
    entries: Annotated[list[str], Field(description="in the order in which they were drawn", examples=[[_EXAMPLE]])]
    next_cursor: Annotated[str | None, Field(description="null on the last page", examples=["100"])]


def draw_body(draw: domain.Draw, next_cursor: str | None) -> DrawBody:
    """The body of a page of a draw."""
    seed = None if draw.seed is None else draw.seed.hex()
    return DrawBody(
        draw.coupon_name, draw.seed_hash, seed, draw.drawn_at, draw.position, list(draw.entries), next_cursor
    )
