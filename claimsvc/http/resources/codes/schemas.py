"""Models of codes. `claimsvc.representations.code_files` reads the files."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from claimsvc import domain
from claimsvc.domain.codes import normalized
from claimsvc.http.framework.problem_bodies import RefusedRowBody, refused_bodies
from claimsvc.representations.fields import CouponName, CouponType, Request, TypeOrNone, UserId
from claimsvc.representations.times import EndsAt


def _normalized(value: Any) -> Any:
    return normalized(value) if isinstance(value, str) else value


CodeText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_CODE_LENGTH,
        pattern=domain.CODE_PATTERN,
        description="1 to 64 characters of A-Z a-z 0-9 . _ - and Hangul syllables, not only dots; case-sensitive",
        examples=["HKTA-2947"],
    ),
    BeforeValidator(_normalized),
]


class CodePath(Request):
    """The path of a code."""

    code: CodeText


class AddCodesQuery(Request):
    """The query of an upload of codes."""

    atomic: Annotated[
        Literal["true", "false"],
        Field(
            description="`true` to add all rows or none; `false` to add the valid rows and reject the others",
            examples=["false"],
        ),
    ] = "true"


class CountsQuery(Request):
    """The query of the counts of codes."""

    type: TypeOrNone = ""


class GenerateCodes(Request):
    """How many codes to generate, and from which pattern."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"count": 100, "pattern": "AAAA-9999"}

    count: Annotated[
        int, Field(ge=1, le=domain.MAX_GENERATED, description="an integer from 1 to 100000", examples=[100])
    ]
    pattern: Annotated[
        str,
        Field(
            min_length=1,
            max_length=domain.MAX_CODE_LENGTH,
            pattern=domain.GENERATION_PATTERN,
            description=domain.GENERATION_RULE,
            examples=["AAAA-9999"],
        ),
    ]
    expires_at: EndsAt | None = None


class RedeemCode(Request):
    """Whose code it must be. Without `user_id`, anybody's code is redeemed."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"user_id": "user-1"}

    user_id: UserId | None = None


@dataclass(frozen=True, slots=True)
class CodesAddedBody:
    """The result of adding codes. `rejected` lists the first 1000 of `rejected_count` rows that were not added."""

    added: Annotated[int, Field(ge=0)]
    rejected_count: Annotated[int, Field(ge=0)]
    rejected: list[RefusedRowBody]


@dataclass(frozen=True, slots=True)
class CodeBody:
    """A code and its state. `claim_id` is the claim that it belongs to."""

    code: CodeText
    coupon_name: CouponName
    state: domain.CodeState
    claim_id: Annotated[str | None, Field(json_schema_extra={"format": "uuid"})]
    expires_at: datetime | None
    redeemed_at: datetime | None


@dataclass(frozen=True, slots=True)
class CodeCountsBody:
    """The numbers of codes of a type: `uploaded` were added in all, `claimed` are claimed, held or redeemed, `redeemed`
    are redeemed, and `voided` can never be claimed again. The numbers may be slightly outdated."""

    type: CouponType | None
    uploaded: Annotated[int, Field(ge=0)]
    claimed: Annotated[int, Field(ge=0)]
    redeemed: Annotated[int, Field(ge=0)]
    voided: Annotated[int, Field(ge=0)]


def added_body(added: domain.CodesAdded) -> CodesAddedBody:
    """The body of the result of adding codes."""
    return CodesAddedBody(added.added, added.refused_count, refused_bodies(added))


def code_body(code: domain.Code) -> CodeBody:
    """The body of a code."""
    return CodeBody(code.code, code.coupon_name, code.state, code.claim_id, code.expires_at, code.redeemed_at)


def counts_body(coupon_type: str | None, counts: domain.CodeCounts) -> CodeCountsBody:
    """The body of counts; `coupon_type` is None for coupons without a type."""
    return CodeCountsBody(coupon_type, counts.uploaded, counts.claimed, counts.redeemed, counts.voided)
