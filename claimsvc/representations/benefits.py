"""Benefits: what a coupon, or a code of it, is worth."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationError

from claimsvc.representations.csv_cells import unguarded
from claimsvc.representations.fields import MAX_ENTRIES, MAX_NUMBER, Request, VisibleLine, at_most
from claimsvc.representations.mistakes import nearest

BENEFIT_RULE = "an object with `percent_off`, or with `amount_off` and `currency`, or with `text`"
_NUMBER = re.compile(r"\d{1,16}(\.\d{1,16})?", re.ASCII)


class PercentOff(Request):
    """A discount in per cent."""

    percent_off: Annotated[
        float, Field(gt=0, le=100, description="a number greater than 0 and at most 100", examples=[15])
    ]


class AmountOff(Request):
    """A discount as an amount, in the smallest unit of a currency (ISO 4217)."""

    amount_off: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_NUMBER,
            description="an integer from 1 to 9007199254740991, in the smallest unit of the currency",
            examples=[5000],
        ),
    ]
    currency: Annotated[
        str,
        Field(
            pattern="^[A-Z]{3}$",
            description="the three capital letters of a currency (ISO 4217)",
            examples=["KRW"],
        ),
    ]


class OtherBenefit(Request):
    """Any other benefit, as text."""

    text: Annotated[VisibleLine, Field(examples=["a free coffee"])]


_BENEFITS: Mapping[str, type[Request]] = {"percent_off": PercentOff, "amount_off": AmountOff, "text": OtherBenefit}
_MOST_MEMBERS = max(len(model.model_fields) for model in _BENEFITS.values())


def _kind_of_benefit(value: Any) -> str | None:
    """The benefit that is meant, by its names or what is near them, so that mistakes are told about that one alone."""
    if not isinstance(value, dict):
        return next((kind for kind, model in _BENEFITS.items() if isinstance(value, model)), None)
    of_name = {name: kind for kind, model in _BENEFITS.items() for name in model.model_fields}
    for known in (lambda name: name if name in of_name else None, lambda name: nearest(name, of_name)):
        for name in islice(value, MAX_ENTRIES):
            if found := known(name):
                return of_name[found]
    return None


Benefit = Annotated[
    Annotated[PercentOff, Tag("percent_off")]
    | Annotated[AmountOff, Tag("amount_off")]
    | Annotated[OtherBenefit, Tag("text")],
    Discriminator(_kind_of_benefit),
    Field(
        description=BENEFIT_RULE,
        examples=[{"percent_off": 15}],
    ),
    at_most(MAX_ENTRIES),
]

BENEFIT_COLUMNS = ("percent_off", "amount_off", "currency", "text")
"""The columns of CSV for a benefit: the names of its members, of which a benefit has one or two."""


def benefit_body(benefit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The body of a benefit; None if there is none."""
    return None if benefit is None else dict(benefit)


def benefit_of(value: object) -> Mapping[str, Any]:
    """Return the benefit that a decoded JSON value is.

    Raises:
        ValueError: it is none.
    """
    # Not by `Benefit`, which finds out what was meant by a mistake: a file may have one in each row.
    if not isinstance(value, dict) or len(value) > _MOST_MEMBERS:
        raise ValueError("not a benefit")
    kind = next((kind for kind in _BENEFITS if kind in value), None)
    if kind is None:
        raise ValueError("not a benefit")
    try:
        return _BENEFITS[kind].model_validate(value).model_dump()
    except ValidationError:
        raise ValueError("not a benefit") from None


def benefit_of_cells(cells: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the benefit of cells of CSV that are not empty, by their columns of `BENEFIT_COLUMNS`. Raises as
    `benefit_of`."""
    return benefit_of({column: _value(column, cell) for column, cell in cells.items()})


def _value(column: str, cell: str) -> Any:
    if column == "text":
        return unguarded(cell)
    if column == "currency" or not _NUMBER.fullmatch(cell):
        return cell
    number = float(cell) if "." in cell else int(cell)
    # A spreadsheet may write 5000 as 5000.0.
    return int(number) if number == int(number) else number
