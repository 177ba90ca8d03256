"""Models of codes. `claimsvc.representations.code_files` reads the files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from claimsvc import domain
from claimsvc.domain.outcomes import problem_of
from claimsvc.http.framework import parameters
from claimsvc.representations.codes import CodeBody, CodeText, code_body
from claimsvc.representations.coupons import Uses
from claimsvc.representations.fields import CouponType, Request, TypeOrNone, UserId
from claimsvc.representations.times import EndsAt

# A code's characters in UTF-8, in hex: the ASCII ones, then Hangul syllables, U+AC00 to U+D7A3. A dot alone is allowed,
# which costs nothing: the page then begins after it.
_LATER = "[89ab][0-9a-f]"
_CURSOR = (
    "^(2d|2e|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a]"
    f"|eab[0-9a-f]{_LATER}|e[bc]{_LATER}{_LATER}|ed(8[0-9a-f]|9[0-9a-d]){_LATER}|ed9e([89][0-9a-f]|a[0-3]))+$"
)


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
    uses: Annotated[
        Uses | None,
        Field(
            description="an integer from 1 to 1000: how often each of the codes may be redeemed; by default, as often "
            "as the coupon says"
        ),
        BeforeValidator(parameters.whole_number),
    ] = None


class CodesQuery(Request):
    """The query of a list of codes."""

    limit: parameters.Limit = parameters.DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(
            # The bytes of a code in UTF-8, of any length. More than the longest code has is refused.
            max_length=6 * domain.MAX_CODE_LENGTH,
            pattern=_CURSOR,
            description="`next_cursor` of the previous page",
            examples=["484b54412d32393437"],
        ),
    ] = ""

    def after(self) -> str:
        """The last code of the previous page; empty for the first page."""
        return bytes.fromhex(self.cursor).decode()


class CheckQuery(Request):
    """Whose code it must be."""

    user_id: Annotated[
        UserId | None,
        Field(
            description="1 to 255 visible ASCII characters, without spaces: whose code it must be; users may name "
            "themselves only"
        ),
    ] = None


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
    uses: Uses | None = None


class RedeemCode(Request):
    """Whose code it must be. Without `user_id`, anybody's code is redeemed."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"user_id": "user-1"}

    user_id: UserId | None = None


@dataclass(frozen=True, slots=True)
class CodePageBody:
    """A page of a coupon's codes, in the order of their bytes. `next_cursor` is null on the last page."""

    items: list[CodeBody]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ProblemOfCheckBody:
    """The problem that redeeming would be answered with."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str


@dataclass(frozen=True, slots=True)
class CodeCheckBody:
    """What redeeming the code would result in. `problem` is its answer if it would be refused."""

    redeemable: bool
    problem: ProblemOfCheckBody | None
    code: CodeBody


@dataclass(frozen=True, slots=True)
class CodeCountsBody:
    """The numbers of codes of a type: `uploaded` were added in all, `claimed` are claimed, held or redeemed, `redeemed`
    are redeemed, and `voided` can never be claimed again. The numbers may be slightly outdated."""

    type: CouponType | None
    uploaded: Annotated[int, Field(ge=0)]
    claimed: Annotated[int, Field(ge=0)]
    redeemed: Annotated[int, Field(ge=0)]
    voided: Annotated[int, Field(ge=0)]


def check_body(check: domain.CodeCheck, caller: domain.Caller) -> CodeCheckBody:
    """The body of what redeeming a code would result in."""
    problem = None
    if check.refusal is not None:
        about = problem_of(check.refusal)
        problem = ProblemOfCheckBody(about.type, about.title, about.status, about.meaning)
    return CodeCheckBody(problem is None, problem, code_body(check.code, caller))


def page_body(codes: Sequence[domain.Code], next_cursor: str | None, caller: domain.Caller) -> CodePageBody:
    """The body of a page of codes."""
    return CodePageBody([code_body(code, caller) for code in codes], next_cursor)


def code_cursor(code: domain.Code) -> str:
    """The cursor of the page that begins after this code."""
    return code.code.encode().hex()


def counts_body(coupon_type: str | None, counts: domain.CodeCounts) -> CodeCountsBody:
    """The body of counts; `coupon_type` is None for coupons without a type."""
    return CodeCountsBody(coupon_type, counts.uploaded, counts.claimed, counts.redeemed, counts.voided)
