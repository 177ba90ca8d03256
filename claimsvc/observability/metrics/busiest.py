"""Chooses the coupons that get their own series."""

import math
from collections.abc import Callable, Iterable

OTHER = "other"


class BusiestCoupons:
    """Gives the busiest coupons their own label. All others share the label `other`, which limits the number of series.

    Args:
        capacity: how many coupons have a label at a time.
        replacements: how many times a busier coupon may replace a labelled one, in total. Several workers share their
            metrics through files from which series cannot be removed, so they need a limit.
        on_labelled: called with each coupon that gets a label.
        on_retired: called with each coupon that loses its label.
    """

    def __init__(
        self,
        capacity: int = 100,
        replacements: float = math.inf,
        on_labelled: Callable[[str], None] = lambda _: None,
        on_retired: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_labelled = on_labelled
        self._on_retired = on_retired
        self._capacity = capacity
        self._replacements = replacements
        self._labelled: dict[str, int] = {}
        self._candidates: dict[str, int] = {}
        self._counted = 0

    def __contains__(self, coupon_name: str) -> bool:
        return coupon_name in self._labelled

    def names(self) -> list[str]:
        return list(self._labelled)

    def label(self, coupon_name: str) -> str:
        return coupon_name if coupon_name in self._labelled else OTHER

    def labels(self, coupon_names: Iterable[str]) -> dict[str, int]:
        """Return the labels of coupons, and how many of the coupons have each."""
        counts: dict[str, int] = {}
        for name in coupon_names:
            label = name if name in self._labelled else OTHER
            counts[label] = counts.get(label, 0) + 1
        return counts

    def count(self, coupon_name: str) -> str:
        """Count one claim of a coupon that exists, and return the coupon's label."""
        if coupon_name == OTHER:  # it would share the series of all coupons without a label
            return OTHER
        self._counted += 1
        if self._counted >= 100 * self._capacity:
            self._age()
        if coupon_name in self._labelled:
            self._labelled[coupon_name] += 1
        elif len(self._labelled) < self._capacity:
            self._labelled[coupon_name] = 1
            self._on_labelled(coupon_name)
        else:
            self._count_candidate(coupon_name)
        return self.label(coupon_name)

    def _count_candidate(self, coupon_name: str) -> None:
        if len(self._candidates) >= 10 * self._capacity and coupon_name not in self._candidates:
            return  # there is room after the next ageing
        count = self._candidates[coupon_name] = self._candidates.get(coupon_name, 0) + 1
        if self._replacements and count % 64 == 0:
            least = min(self._labelled, key=self._labelled.__getitem__)
            if count > 2 * self._labelled[least]:
                self._replacements -= 1
                self._candidates[least] = self._labelled.pop(least)
                self._labelled[coupon_name] = self._candidates.pop(coupon_name)
                self._on_retired(least)
                self._on_labelled(coupon_name)

    def _age(self) -> None:
        """Halve all counts, so that coupons that are busy now can replace those that were."""
        self._counted = 0
        self._labelled = {name: count // 2 for name, count in self._labelled.items()}
        self._candidates = {name: count // 2 for name, count in self._candidates.items() if count > 1}
