"""Codes: showing one, and the result of adding some. `code_files` reads the files."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field

from claimsvc import domain
from claimsvc.domain.codes import normalized
from claimsvc.representations.benefits import benefit_body
from claimsvc.representations.coupons import Uses
from claimsvc.representations.fields import CouponName, CouponType, UserId


def _normalized(value: Any) -> Any:
    return normalized(value) if isinstance(value, str) else value


CodeText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=domain.MAX_CODE_LENGTH,
        pattern=domain.CODE_PATTERN,
        description="1 to 64 characters of A-Z a-z 0-9 . _ - and Hangul syllables, not only dots",
        examples=["HKTA-2947"],
    ),
    BeforeValidator(_normalized),
]


@dataclass(frozen=True, slots=True)
class RefusedRowBody:
    """A row that was rejected. `row` counts from 1; `code` is null if the row has no valid code."""

    row: Annotated[int, Field(ge=1)]
    code: str | None
    reason: domain.RowReason


@dataclass(frozen=True, slots=True)
class CodesAddedBody:
    """The result of adding codes. `rejected` lists the first 1000 of `rejected_count` rows that were not added."""

    added: Annotated[int, Field(ge=0)]
    rejected_count: Annotated[int, Field(ge=0)]
    rejected: list[RefusedRowBody]


@dataclass(frozen=True, slots=True)
class CodeWithoutUserBody:
    """A code and its state. `claim_id` is the claim that it belongs to."""

    code: CodeText
    coupon_name: CouponName
    state: Annotated[
        domain.CodeState,
        Field(
            description="`free`: no claim has it; `held`: a held claim has it; `claimed`; `redeemed`: as often as it "
            "may be; `expired`: `expires_at` has passed before that; `voided`: it will never be given or redeemed"
        ),
    ]
    claim_id: Annotated[str | None, Field(json_schema_extra={"format": "uuid"})]
    expires_at: datetime | None
    redeemed_at: Annotated[datetime | None, Field(description="when it was redeemed, for the last time if several")]
    uses: Uses
    redeemed_count: Annotated[int, Field(ge=0, description="how often it was redeemed", examples=[0])]
    type: Annotated[CouponType | None, Field(description="its own type, or else that of its coupon")]
    benefit: Annotated[
        dict[str, Any] | None,
        Field(
            description="what it is worth: its own benefit, or else that of its coupon", examples=[{"percent_off": 15}]
        ),
    ]


@dataclass(frozen=True, slots=True)
class CodeBody(CodeWithoutUserBody):
    """A code, its state, and whose it is."""

    user_id: Annotated[
        UserId | None,
        Field(
            description="the user whose claim has it, null if no claim has; absent unless it is your own, or the key "
            "has the scope `claims:read`"
        ),
    ] = None


def refused_bodies(rows: domain.RowsRefused | domain.CodesAdded) -> list[RefusedRowBody]:
    """The bodies of rejected rows."""
    return [RefusedRowBody(row.row, row.code or None, row.reason) for row in rows.refused]


def added_body(added: domain.CodesAdded) -> CodesAddedBody:
    """The body of the result of adding codes."""
    return CodesAddedBody(added.added, added.refused_count, refused_bodies(added))


def code_body(code: domain.Code, caller: domain.Caller) -> CodeBody:
    """The body of a code, as far as the caller may see it."""
    shown = (
        code.code,
        code.coupon_name,
        code.state,
        code.claim_id,
        code.expires_at,
        code.redeemed_at,
        code.uses,
        code.redeemed_count,
        code.type,
        benefit_body(code.benefit),
    )
    if caller.sees(code.user_id):
        return CodeBody(*shown, code.user_id)
    return cast("CodeBody", CodeWithoutUserBody(*shown))
