"""A coupon's claims as CSV (RFC 4180), however many there are.

PostgreSQL formats the lines: formatting them in Python would block the event loop, and so claims, for tens of
milliseconds per page. Each page is a separate statement that continues after the last one, so nothing stays open or
locked in between. Claims made meanwhile may or may not be included, and each line shows its claim as of its page.
"""

from collections.abc import AsyncIterator

from claimsvc.domain import UnknownCoupon
from claimsvc.postgres.coupon_rows import coupon_exists
from claimsvc.postgres.database import Database

_PAGE_CLAIMS = 5_000
_HEADER = b"id,coupon_name,user_id,state,claimed_at,expires_at,ended_at%b\r\n"
# The position before all claims.
_START = ("-infinity", "00000000-0000-0000-0000-000000000000")


def _text(column: str) -> str:
    """Return SQL for a cell with text from clients, in the form of `claimsvc/representations/csv_cells.py`."""
    escaped = f"replace(replace({column}, '%%', '%%25'), ';', '%%3B')"
    guarded = rf"CASE WHEN {column} ~ '^[-=+@\t\r'']|;' THEN '''' || {escaped} ELSE {column} END"
    return f"""'"' || replace({guarded}, '"', '""') || '"'"""


def _number(member: str) -> str:
    return f"coalesce(benefit ->> '{member}', '')"


def _time(column: str) -> str:
    return f"""coalesce(to_char({column}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '')"""


_IS_HELD = "state = 'active' AND held_until IS NOT NULL"
_COLUMNS_WITH_CODES = b",code,type,percent_off,amount_off,currency,text"
# A benefit has the columns in which codes are uploaded. Without a `code`, because a hold's may still change, the type
# and the benefit are those of the coupon.
_CODE = f""", (
            SELECT concat_ws(',', coalesce({_text("code")}, ''), coalesce({_text("type")}, ''),
                {_number("percent_off")}, {_number("amount_off")}, {_number("currency")},
                coalesce({_text("(benefit ->> 'text')")}, ''))
            FROM (
                SELECT code.code, coalesce(code.own_type, campaign.type) AS type,
                    coalesce(code.benefit, campaign.benefit) AS benefit
                FROM (SELECT) AS claim
                LEFT JOIN codes AS code ON code.coupon_name = user_claims.coupon_name
                    AND code.claim_id = user_claims.id AND NOT ({_IS_HELD})
                LEFT JOIN campaigns AS campaign ON campaign.coupon_name = user_claims.coupon_name
                LIMIT 1
            ) AS shown
        )"""  # noqa: S608 - of constants
_PAGE = rf"""
WITH page AS MATERIALIZED (
    SELECT claimed_at, id, concat_ws(
        ',', id, {_text("coupon_name")}, {_text("user_id")}, CASE WHEN {_IS_HELD} THEN 'held' ELSE state END,
        {_time("claimed_at")}, {_time(f"CASE WHEN {_IS_HELD} THEN held_until END")}, {_time("ended_at")} {{code}}
    ) AS line
    FROM user_claims
    WHERE coupon_name = %(coupon_name)s AND (claimed_at, id) > (%(after_at)s::timestamptz, %(after_id)s::uuid)
    ORDER BY claimed_at, id
    LIMIT %(limit)s
), last AS (
    SELECT claimed_at, id FROM page ORDER BY claimed_at DESC, id DESC LIMIT 1
)
SELECT string_agg(line || E'\r\n', '' ORDER BY claimed_at, id), count(*),
    (SELECT claimed_at::text FROM last), (SELECT id::text FROM last)
FROM page
"""  # noqa: S608 - of constants
_PAGE_WITHOUT_CODES, _PAGE_WITH_CODES = _PAGE.format(code=""), _PAGE.format(code=_CODE)


class PostgresExports:
    """`ports.Exports` on PostgreSQL.

    Args:
        database: where statements run.
        page_claims: claims per page.
    """

    def __init__(self, database: Database, *, page_claims: int = _PAGE_CLAIMS) -> None:
        self._database = database
        self._page_claims = page_claims

    async def claims(self, coupon_name: str, *, with_codes: bool = False) -> AsyncIterator[bytes] | UnknownCoupon:
        if not await coupon_exists(self._database, coupon_name):
            return UnknownCoupon()
        return self._pages(coupon_name, with_codes)

    async def _pages(self, coupon_name: str, with_codes: bool) -> AsyncIterator[bytes]:
        yield _HEADER % (_COLUMNS_WITH_CODES if with_codes else b"")
        page = _PAGE_WITH_CODES if with_codes else _PAGE_WITHOUT_CODES
        count, (after_at, after_id) = self._page_claims, _START
        while count == self._page_claims:
            place = {"coupon_name": coupon_name, "after_at": after_at, "after_id": after_id}
            [(lines, count, after_at, after_id)] = await self._database.fetch(
                page, {**place, "limit": self._page_claims}
            )
            if count:
                yield lines.encode()
