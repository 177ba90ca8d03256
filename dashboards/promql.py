"""Expressions of Prometheus, in which every metric is narrowed to what the dashboard's variables select.

Where a selector begins with `{HERE`, it stands for the chosen jobs and instances; with `{COUPON`, for the chosen
coupons as well. More can follow: `claimsvc_claims_total{COUPON, outcome="claimed"}`.
"""

_HERE = '{job=~"$job", instance=~"$instance"'
_COUPON = _HERE + ', coupon=~"$coupon"'

HERE, COUPON = "HERE", "COUPON"


def selected(expression: str) -> str:
    """The expression with its selectors spelt out."""
    return expression.replace("{HERE", _HERE).replace("{COUPON", _COUPON)


def quantile(share: float, histogram: str, by: str = "", where: str = HERE) -> str:
    """A quantile of a histogram over the last moments.

    Args:
        share: which, from 0 to 1.
        histogram: the metric, without `_bucket`.
        by: labels that each have a quantile of their own, separated by commas.
        where: `HERE` or `COUPON`, and more matchers after a comma.
    """
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[$__rate_interval])))"


def buckets(histogram: str, where: str = HERE) -> str:
    """Observations per second in each bucket of a histogram: a heatmap's rows."""
    return f"sum by (le) (rate({histogram}_bucket{{{where}}}[$__rate_interval]))"


def per_second(counter: str, by: str = "", where: str = HERE) -> str:
    """The rate of a counter over the last moments, added up for each value of the labels `by`."""
    return f"sum by ({by}) (rate({counter}{{{where}}}[$__rate_interval]))"
