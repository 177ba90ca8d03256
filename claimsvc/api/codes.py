"""The routes of codes: each asks for an admin key, so that nobody finds one by trying."""

from aiohttp import web

from claimsvc import domain
from claimsvc.api import code_schemas, parameters, problems
from claimsvc.api.answer import Reply
from claimsvc.api.routing import Route, Success, ok
from claimsvc.api.services import ACTOR, REQUEST_ID, SERVICES
from claimsvc.api.uploads import CSV, NDJSON, reader_of, uploaded_rows


async def add_codes(request: web.Request, path: parameters.CouponPath, query: code_schemas.AddCodesQuery) -> Reply:
    """Add codes to a coupon: `text/csv` with `code` or `code,expires_at` a line, or `application/x-ndjson` with
    `{"code": ..., "expires_at": ...}` a line. Its amount becomes what is claimed already and its codes, and each claim
    from now on is given one. At most 200000 rows and 32 MiB; sent again, what was added is rejected as `exists`."""
    services = request.app[SERVICES]
    rows = uploaded_rows(request, reader_of(request), timeout_seconds=services.body_timeout_seconds)
    entry = _entry(request, "codes.add", "coupon", path.name)
    return _added(request, await services.codes.add(path.name, rows, entry, atomic=query.atomic == "true"))


async def generate_codes(request: web.Request, path: parameters.CouponPath, body: code_schemas.GenerateCodes) -> Reply:
    """Make codes at random, and add them to a coupon. Sent again, it makes as many again."""
    entry = _entry(request, "codes.generate", "coupon", path.name)
    codes = request.app[SERVICES].codes
    return _added(request, await codes.generate(path.name, body.count, body.pattern, body.expires_at, entry))


async def redeem_code(request: web.Request, path: code_schemas.CodePath) -> Reply:
    """Use a code that a claim has. It can be done once: of several who try at the same time, one succeeds."""
    redeemed = await request.app[SERVICES].codes.redeem(path.code, _entry(request, "code.redeem", "code", path.code))
    if isinstance(redeemed, domain.Redeemed):
        return ok(code_schemas.code_body(redeemed.code))
    return problems.from_outcome(redeemed, request[REQUEST_ID])


async def get_code(request: web.Request, path: code_schemas.CodePath) -> Reply:
    """A code, and whose it is."""
    code = await request.app[SERVICES].codes.code(path.code)
    if code is None:
        return problems.from_outcome(domain.UnknownCode(), request[REQUEST_ID])
    return ok(code_schemas.code_body(code))


async def count_codes(request: web.Request, query: code_schemas.CountsQuery) -> Reply:
    """How many codes there are of a type of coupons."""
    coupon_type = query.type or None
    return ok(code_schemas.counts_body(coupon_type, await request.app[SERVICES].count_codes(coupon_type)))


def _added(
    request: web.Request,
    added: domain.CodesAdded | domain.RowsRefused | domain.PatternTooSmall | domain.CodeExpired | domain.UnknownCoupon,
) -> Reply:
    if isinstance(added, domain.CodesAdded):
        return ok(code_schemas.added_body(added))
    return problems.from_outcome(added, request[REQUEST_ID])


def _entry(request: web.Request, action: str, subject_type: str, subject: str) -> domain.AuditEntry:
    return domain.AuditEntry(request[ACTOR], action, subject_type, subject, request_id=request[REQUEST_ID])


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/coupons/{name}/codes",
        add_codes,
        tag="codes",
        summary="Add codes to a coupon",
        success=Success(200, "They are added.", code_schemas.CodesAddedBody),
        problems=(problems.ROWS_REFUSED, problems.UNKNOWN_COUPON, problems.UNAVAILABLE),
        admin=True,
        streams=(CSV, NDJSON),
    ),
    Route(
        "POST",
        "/api/coupons/{name}/codes/generate",
        generate_codes,
        tag="codes",
        summary="Make codes for a coupon",
        success=Success(200, "They are added.", code_schemas.CodesAddedBody),
        problems=(
            problems.UNKNOWN_COUPON,
            problems.PATTERN_TOO_SMALL,
            problems.CODE_EXPIRED,
            problems.UNAVAILABLE,
        ),
        admin=True,
    ),
    Route(
        "POST",
        "/api/codes/{code}/redeem",
        redeem_code,
        tag="codes",
        summary="Redeem a code",
        success=Success(200, "It is redeemed.", code_schemas.CodeBody),
        problems=(
            problems.UNKNOWN_CODE,
            problems.ALREADY_REDEEMED,
            problems.CODE_NOT_CLAIMED,
            problems.CODE_EXPIRED,
            problems.UNAVAILABLE,
        ),
        admin=True,
    ),
    Route(
        "GET",
        "/api/codes/{code}",
        get_code,
        tag="codes",
        summary="Look a code up",
        success=Success(200, "The code.", code_schemas.CodeBody),
        problems=(problems.UNKNOWN_CODE, problems.UNAVAILABLE),
        admin=True,
    ),
    Route(
        "GET",
        "/api/codes",
        count_codes,
        tag="codes",
        summary="Count codes",
        success=Success(200, "The counts.", code_schemas.CodeCountsBody),
        problems=(problems.UNAVAILABLE,),
        admin=True,
    ),
)
