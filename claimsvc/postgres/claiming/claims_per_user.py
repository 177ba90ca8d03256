"""How many claims a user has made of a coupon, and how many one may make, in SQL.

A user who claims and cancels again and again would use up what others might have: codes that were shown are voided.
`coupons.ended_count` counts the claims of a coupon that have ended, and is NULL if that is not known. While it is 0,
nobody can have made more claims than the unique index of active claims allows, so nothing is counted. Whatever ends a
claim holds the coupon's row, and raises it in the same transaction.
"""

from claimsvc.domain import FURTHER_CLAIMS, PLAIN

_MOST_OF_PLAIN = PLAIN.most_claims


def most_claims(coupon: str) -> str:
    """Return an expression: how many claims of the coupon one user may make, ended ones included."""
    return f"""coalesce(
            (SELECT coalesce(claims_per_user, per_user_limit + {FURTHER_CLAIMS}) FROM campaigns
            WHERE coupon_name = {coupon}),
            {_MOST_OF_PLAIN}
        )"""  # noqa: S608 - of constants


def ended_claims(coupon: str, user: str, *, most: str) -> str:
    """Return an expression: how many claims of the coupon by the user have ended, counted up to `most`.

    It takes one look-up in the index of ended claims.
    """
    return f"""(
            SELECT count(*) FROM (
                SELECT FROM user_claims
                WHERE coupon_name = {coupon} AND user_id = {user} AND state <> 'active'
                LIMIT {most}
            ) AS ended
        )"""  # noqa: S608 - of constants
