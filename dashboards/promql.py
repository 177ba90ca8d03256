"""PromQL expressions, with placeholders for the dashboard's variables.

A selector that begins with `{HERE` matches the selected jobs and instances; with `{COUPON`, the selected coupons too.
Further matchers can follow: `claimsvc_claims_total{COUPON, outcome="claimed"}`.
"""

_HERE = '{job=~"$job", instance=~"$instance"'
_COUPON = _HERE + ', coupon=~"$coupon"'

HERE, COUPON = "HERE", "COUPON"

UP = "(up{HERE} and on (job) last_over_time(claimsvc_build_info{HERE}[1h]))"
"""Whether each instance can be scraped. `up` alone, of all jobs, is also of balancers and of Prometheus itself."""


def selected(expression: str) -> str:
    """Replace the placeholders of an expression."""
    return expression.replace("{HERE", _HERE).replace("{COUPON", _COUPON)


def quantile(share: float, histogram: str, by: str = "", where: str = HERE) -> str:
    """Return a quantile of a histogram over the rate interval.

    Args:
        share: the quantile, from 0 to 1.
        histogram: the metric, without `_bucket`.
        by: labels to group by, separated by commas.
        where: `HERE` or `COUPON`, and further matchers after a comma.
    """
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[$__rate_interval])))"


def quantiles(histogram: str, by: str = "", where: str = HERE) -> dict[str, str]:
    """Return p50, p90 and p99 by name. Arguments as in `quantile`."""
    return {f"p{share * 100:g}": quantile(share, histogram, by, where) for share in (0.5, 0.9, 0.99)}


def buckets(histogram: str, where: str = HERE) -> str:
    """Return the observations per second in each bucket of a histogram, for a heatmap."""
    return f"sum by (le) (rate({histogram}_bucket{{{where}}}[$__rate_interval]))"


def per_second(counter: str, by: str = "", where: str = HERE) -> str:
    """Return the rate of a counter, summed by the labels `by`."""
    return f"sum by ({by}) (rate({counter}{{{where}}}[$__rate_interval]))"


def happened(counter: str, over: str, by: str, where: str = COUPON) -> str:
    """Return how often something happened, rounded to an integer.

    `increase` ignores the first value of a series, and a series of rare events may start with all of them. So the value
    of a new series counts too. A series that was missing for a moment is not new.

    Args:
        counter, where: see `quantile`.
        over: the period, such as `5m` or a variable of Grafana.
        by: labels to group by, separated by commas.
    """
    series = f"{counter}{{{where}}}"
    return (
        f"round(sum by ({by}) (({series} unless last_over_time({series}[1h] offset {over}))"
        f" or increase({series}[{over}])))"
    )


def not_sold_out(expression: str) -> str:
    """Exclude coupons that are known to be sold out: a claim that waits for their lock would be refused anyway."""
    return f"{expression} unless on (coupon) (min by (coupon) (claimsvc_coupon_remaining{{COUPON}}) == 0)"


def ten_most(expression: str) -> str:
    """Select the ten series with the largest values."""
    return f"topk(10, {expression})"
