"""The statement of a sale, composed of what a batch needs."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from claimsvc.postgres.claiming.claims_per_user import ended_claims
from claimsvc.postgres.claiming.code_pool import next_codes
from claimsvc.postgres.idempotency import claimed_as_json, time_as_json


class Shape(NamedTuple):
    """What a batch needs. Each shape has a statement of its own, which does nothing that is not needed.

    Args:
        codes: units come with codes.
        slots: users may have units in other slots than the first.
        holds: some units are held.
        keys: some answers are stored.
        fence: some claims were handed over.
        refusals: some claims are not eligible.
        lists: the coupon has an allow list or a deny list.
    """

    codes: bool
    slots: bool
    holds: bool
    keys: bool
    fence: bool
    refusals: bool
    lists: bool


@cache
def selling(shape: Shape) -> str:
    """Return the statement of a shape.

    It returns the moment, something without a meaning, and with codes: the codes in their order, as lines; their terms,
    if any has; the place of the last, and how many claims had ended then, or NULL if that is not known.
    """
    written = ["admitted", *(["given"] if shape.codes else ())]
    sound = " AND ".join(f"(SELECT count(*) FROM {name}) = units" for name in written)  # noqa: S608
    if shape.keys:
        sound += " AND (SELECT count(*) FROM answered) = (SELECT count(key) FROM attempt)"
    return f"""
WITH attempt AS (
    {_attempt(shape)}
){_own() if shape.slots else ""}{_free() if shape.codes else ""}, sold AS (
    UPDATE coupons
    SET remaining_amount = remaining_amount - %(units)s{", plain_until = 'epoch'" if shape.holds else ""}
    WHERE name = %(coupon_name)s AND remaining_amount >= %(units)s
        AND {" AND ".join(_conditions(shape))}
    RETURNING name, %(units)s AS units, statement_timestamp() AS sold_at, ended_count{_AS_TEXT if shape.keys else ""}
), admitted AS (
    INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, slot, held_until)
    SELECT claim_id, sold.name, user_id, 'active', sold_at, {"slot" if shape.slots else "1"}, {_held_until(shape)}
    FROM sold CROSS JOIN attempt{" JOIN own USING (place, user_id)" if shape.slots else ""}
    RETURNING 1
){_GIVEN if shape.codes else ""}{_answered(shape) if shape.keys else ""}{_FENCED if shape.fence else ""}
-- If the numbers differ, the division by zero rolls everything back.
SELECT sold_at, 1 / ({sound})::int{_CODES if shape.codes else ""}
FROM sold{" CROSS JOIN free" if shape.codes else ""}
"""  # noqa: S608 - of constants


_AS_TEXT = f", {time_as_json('statement_timestamp()')} AS sold_text"
_CODES = ", array_to_string(codes, E'\\n'), terms, last_place, ended_count"


def _attempt(shape: Shape) -> str:
    """The claims, each column a parameter of lines. An empty line is NULL where an option may be missing."""
    columns = {"claim_id": "string_to_array(%(claim_id)s, E'\\n')::uuid[]", "user_id": _LINES}
    if shape.holds:
        columns["hold_seconds"] = "string_to_array(%(hold_seconds)s, E'\\n', '')::int[]"
    if shape.keys:
        columns["key"] = "string_to_array(%(key)s, E'\\n', '')"
        columns |= dict.fromkeys(("caller", "fingerprint", "request_id"), _LINES)
    arrays = ", ".join(form.replace("column", name) for name, form in columns.items())
    return f"SELECT * FROM unnest({arrays}) WITH ORDINALITY AS given ({', '.join(columns)}, place)"  # noqa: S608


_LINES = "string_to_array(%(column)s, E'\\n')"


def _conditions(shape: Shape) -> Iterator[str]:
    yield """(
            SELECT xmin::text FROM campaigns WHERE coupon_name = %(coupon_name)s
        ) IS NOT DISTINCT FROM %(version)s AND NOT EXISTS (
            SELECT FROM campaigns WHERE coupon_name = %(coupon_name)s AND (
                paused OR archived_at IS NOT NULL OR starts_at > statement_timestamp()
                OR ends_at <= statement_timestamp()
            )
        )"""
    # The full path returns what has expired first: its units and codes are the next.
    # The order keeps the planner at one look-up in the index of those that can expire.
    yield """(
            SELECT held_until FROM user_claims
            WHERE coupon_name = %(coupon_name)s AND state = 'active' AND held_until <= statement_timestamp()
            ORDER BY held_until LIMIT 1
        ) IS NULL"""
    # Who holds a unit in the only slot is refused by its unique index.
    claimant, held = ("own", "own.claims + ") if shape.slots else ("attempt", "")
    ended = ended_claims("%(coupon_name)s", f"{claimant}.user_id", most="%(most_claims)s")
    yield f"(ended_count = 0 OR NOT EXISTS (SELECT FROM {claimant} WHERE {held}{ended} >= %(most_claims)s))"
    if shape.slots:
        yield "NOT EXISTS (SELECT FROM own WHERE claims >= %(limit)s OR held > 0)"
    if shape.codes:
        yield """(
            SELECT expires_at FROM codes
            WHERE coupon_name = %(coupon_name)s AND claim_id IS NULL AND voided_at IS NULL
                AND expires_at <= statement_timestamp()
            ORDER BY expires_at LIMIT 1
        ) IS NULL AND (SELECT cardinality(codes) FROM free) = %(units)s"""
    if shape.lists:
        yield f"""NOT EXISTS (
            SELECT FROM attempt CROSS JOIN (
                SELECT allow_version, deny_version FROM campaigns WHERE coupon_name = %(coupon_name)s
            ) AS campaign
            WHERE allow_version IS NOT NULL AND {_listed("allow")} IS NULL
                OR deny_version IS NOT NULL AND {_listed("deny")} IS NOT NULL
        )"""  # noqa: S608 - of constants
    if shape.refusals:
        # Who has a claim is told so first.
        yield """NOT EXISTS (
            SELECT FROM unnest(string_to_array(%(refused)s, E'\\n')) AS refused (user_id)
            CROSS JOIN LATERAL (
                SELECT FROM user_claims
                WHERE coupon_name = %(coupon_name)s AND user_id = refused.user_id AND state = 'active'
                LIMIT 1
            ) AS claim
        )"""
    if shape.fence:
        yield "fenced_after < %(first_batch)s::uuid"


def _listed(kind: str) -> str:
    """Return an expression: true if the list contains the user, or NULL. LIMIT: see `fast_path`."""
    return f"""(
                SELECT true FROM eligibility_lists
                WHERE coupon_name = %(coupon_name)s AND kind = '{kind}' AND version = campaign.{kind}_version
                    AND user_id = attempt.user_id
                LIMIT 1
            )"""  # noqa: S608 - of constants


def _own() -> str:
    """Return, for each attempt, its user's active claims, with those of earlier attempts, and the next free slot."""
    # LIMIT: see `fast_path`.
    return """, own AS (
    SELECT place, user_id, claims + nth - 1 AS claims, held, CASE WHEN claims = 0 THEN nth ELSE (
        SELECT number FROM generate_series(1, claims + nth) AS number
        WHERE number <> ALL (slots) ORDER BY number OFFSET nth - 1 LIMIT 1
    ) END AS slot
    FROM (
        SELECT place, user_id, row_number() OVER (PARTITION BY user_id ORDER BY place) AS nth FROM attempt
    ) AS numbered
    CROSS JOIN LATERAL (
        SELECT count(*) AS claims, count(held_until) AS held, array_agg(slot) AS slots
        FROM (
            SELECT slot, held_until FROM user_claims
            WHERE coupon_name = %(coupon_name)s AND user_id = numbered.user_id AND state = 'active'
            ORDER BY slot
            LIMIT 1001
        ) AS claim
    ) AS user_claims
)"""


def _free() -> str:
    # One row of arrays: the planner takes a LIMIT that it does not know for a tenth of the codes, and would rather read
    # all codes of the coupon than look up so many.
    free = next_codes("%(coupon_name)s", "%(units)s", now="statement_timestamp()", after=_SOLD_UP_TO)
    return f""", free AS (
    SELECT array_agg(code ORDER BY place) AS codes, array_agg(at ORDER BY place) AS ats, max(place) AS last_place,
        CASE WHEN count(terms) > 0 THEN jsonb_agg(terms ORDER BY place) END AS terms
    FROM ({free}) AS next_code
)"""  # noqa: S608 - of constants


# A code becomes free again only when a claim ends, so this place is right as long as as many have ended. Codes that are
# added change the version of the terms.
_SOLD_UP_TO = """coalesce((
            SELECT %(sold_up_to)s::bigint FROM coupons
            WHERE name = %(coupon_name)s AND ended_count = %(sold_while_ended)s::bigint
        ), 0)"""
# The rows are found by where they are: looking up random codes in the primary key costs as much as changing them. They
# are there still, because whoever changes a free code has locked the coupon's row, and the snapshot is newer than our
# lock. IS TRUE and num_nonnulls match no index: when few rows are expected, the planner would read all codes of the
# coupon.
_GIVEN = """, given AS (
    UPDATE codes
    SET claim_id = (SELECT string_to_array(%(claim_id)s, E'\\n')::uuid[])[array_position(free.ats, codes.ctid)]
    FROM sold CROSS JOIN free
    WHERE codes.ctid = ANY ((SELECT ats FROM free)::tid[])
        AND (codes.coupon_name = %(coupon_name)s) IS TRUE AND num_nonnulls(codes.claim_id, codes.voided_at) = 0
    RETURNING 1
)"""

# It fails on the fence's unique key if one of the handed batches was decided before.
_FENCED = """, fenced AS (
    INSERT INTO handed_batches (coupon_name, id)
    SELECT sold.name, batch.id FROM sold CROSS JOIN unnest(%(batch_ids)s::uuid[]) AS batch (id)
)"""


def _held_until(shape: Shape) -> str:
    return "sold_at + hold_seconds * interval '1 second'" if shape.holds else "NULL::timestamptz"


def _answered(shape: Shape) -> str:
    """Stores the answers. An answer that is there already, even one past its retention, fails on the unique key."""
    answer = claimed_as_json(
        held_until=_held_until(shape),
        code="free.codes[place]" if shape.codes else "NULL",
        terms="free.terms -> (place - 1)::int" if shape.codes else "NULL::jsonb",
    )
    # In the order of `idempotency.store`.
    return f""", answered AS (
    INSERT INTO idempotent_answers (caller, key, fingerprint, answer, request_id)
    SELECT caller, key, decode(fingerprint, 'hex'), {answer}, request_id
    FROM sold CROSS JOIN attempt{" CROSS JOIN free" if shape.codes else ""}
    WHERE key IS NOT NULL
    ORDER BY caller, key
    RETURNING 1
)"""  # noqa: S608 - of constants
