"""What goes over the wire about codes: `claimsvc.representations` has the files."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from claimsvc import domain
from claimsvc.domain.codes import normalized
from claimsvc.http.framework.problem_bodies import RefusedRowBody, refused_bodies
from claimsvc.representations.fields import CouponName, CouponType, Request
from claimsvc.representations.times import EndsAt


def _normalized(value: Any) -> Any:
    return normalized(value) if isinstance(value, str) else value


CodeText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_CODE_LENGTH,
        pattern=domain.CODE_PATTERN,
        description="1 to 64 of A-Z a-z 0-9 . _ - and Hangul syllables, and not dots only; case-sensitive",
        examples=["HKTA-2947"],
    ),
    BeforeValidator(_normalized),
]


class CodePath(Request):
    """The code in its path."""

    code: CodeText


class AddCodesQuery(Request):
    """Whether all rows are taken or none."""

    atomic: Annotated[
        Literal["true", "false"],
        Field(description="`true`: all rows are added, or none; `false`: those that can be", examples=["false"]),
    ] = "true"


class CountsQuery(Request):
    """Of which coupons the codes are counted."""

    type: Annotated[
        str,
        Field(
            max_length=domain.MAX_NAME_LENGTH,
            pattern=rf"^$|{domain.COUPON_NAME_PATTERN}",
            description="the type of the coupons; empty for those that have none",
            examples=["welcome"],
        ),
    ] = ""


class GenerateCodes(Request):
    """How many codes are to be made, and what they look like."""

    count: Annotated[
        int, Field(ge=1, le=domain.MAX_GENERATED, description="a whole number from 1 to 100000", examples=[100])
    ]
    pattern: Annotated[
        str,
        Field(
            min_length=1,
            max_length=domain.MAX_CODE_LENGTH,
            pattern=domain.GENERATION_PATTERN,
            description="of A-Z 0-9 _ - and 가: `A` becomes a letter, `9` a digit, `가` a Hangul syllable, each "
            "without those that look like another; anything else stays",
            examples=["AAAA-9999"],
        ),
    ]
    expires_at: EndsAt | None = None


@dataclass(frozen=True, slots=True)
class CodesAddedBody:
    """How many codes were added, and which rows were not: the first 1000 of `rejected_count`."""

    added: Annotated[int, Field(ge=0)]
    rejected_count: Annotated[int, Field(ge=0)]
    rejected: list[RefusedRowBody]


@dataclass(frozen=True, slots=True)
class CodeBody:
    """A code and where it is in its life."""

    code: CodeText
    coupon_name: CouponName
    state: domain.CodeState
    claim_id: Annotated[str | None, Field(json_schema_extra={"format": "uuid"})]
    expires_at: datetime | None
    redeemed_at: datetime | None


@dataclass(frozen=True, slots=True)
class CodeCountsBody:
    """How many codes there are of a type: ever added, of those claimed or held, of those redeemed; and how many will
    never be given again. It is quick and may be a moment behind."""

    type: CouponType | None
    uploaded: Annotated[int, Field(ge=0)]
    claimed: Annotated[int, Field(ge=0)]
    redeemed: Annotated[int, Field(ge=0)]
    voided: Annotated[int, Field(ge=0)]


def added_body(added: domain.CodesAdded) -> CodesAddedBody:
    """What was added as it goes over the wire."""
    return CodesAddedBody(added.added, added.refused_count, refused_bodies(added))


def code_body(code: domain.Code) -> CodeBody:
    """A code as it goes over the wire."""
    return CodeBody(code.code, code.coupon_name, code.state, code.claim_id, code.expires_at, code.redeemed_at)


def counts_body(coupon_type: str | None, counts: domain.CodeCounts) -> CodeCountsBody:
    """Counts as they go over the wire."""
    return CodeCountsBody(coupon_type, counts.uploaded, counts.claimed, counts.redeemed, counts.voided)
