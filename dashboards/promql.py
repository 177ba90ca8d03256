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


def quantiles(histogram: str, by: str = "", where: str = HERE) -> dict[str, str]:
    """The quantiles that are looked at, by what they are called. Arguments as of `quantile`."""
    return {f"p{share * 100:g}": quantile(share, histogram, by, where) for share in (0.5, 0.9, 0.99)}


def buckets(histogram: str, where: str = HERE) -> str:
    """Observations per second in each bucket of a histogram: a heatmap's rows."""
    return f"sum by (le) (rate({histogram}_bucket{{{where}}}[$__rate_interval]))"


def per_second(counter: str, by: str = "", where: str = HERE) -> str:
    """The rate of a counter over the last moments, added up for each value of the labels `by`."""
    return f"sum by ({by}) (rate({counter}{{{where}}}[$__rate_interval]))"


def happened(counter: str, over: str, by: str, where: str = COUPON) -> str:
    """How often something happened, as a whole number.

    `increase` cannot see what a series begins with, and those of rare events may begin with all that happened. So the
    value of a series that is new counts as well; one that Prometheus has only missed for a moment is not new.

    Args:
        counter, where: see `quantile`.
        over: within which time, as Grafana names it.
        by: labels that are counted apart, separated by commas.
    """
    series = f"{counter}{{{where}}}"
    return (
        f"round(sum by ({by}) (({series} unless last_over_time({series}[1h] offset {over}))"
        f" or increase({series}[{over}])))"
    )


def not_sold_out(expression: str) -> str:
    """Those coupons of `expression` that are not known to be sold out: the claims of the others are refused for good,
    so whoever waits for a lock to be told so is refused no stock."""
    return f"{expression} unless on (coupon) (min by (coupon) (claimsvc_coupon_remaining{{COUPON}}) == 0)"


def ten_most(expression: str) -> str:
    """The ten series with the largest values."""
    return f"topk(10, {expression})"
