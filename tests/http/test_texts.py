"""No field of a request takes a text that shows nothing, nor one that reorders what is shown beside it."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from claimsvc.http.routes import ROUTES
from claimsvc.representations.benefits import AmountOff, OtherBenefit, PercentOff
from claimsvc.representations.fields import Reason
from claimsvc.representations.rules import AttributeRule

_INVISIBLE = ("\u200b", "\ufeff", "\u3164", "\u2800", "\U000e0041", " ", "\u3000", "a\u202eb", "a\nb", "\x00")
_MODELS: set[type[BaseModel]] = {
    *(model for route in ROUTES for part in ("path", "query", "body") if (model := route.model(part)) is not None),
    *(OtherBenefit, AmountOff, PercentOff, AttributeRule),
}
_FIELDS: dict[str, TypeAdapter[Any]] = {
    f"{model.__name__}.{name}": TypeAdapter(Annotated.__class_getitem__((field.annotation, *field.metadata, name)))  # type: ignore[attr-defined]
    for model in _MODELS
    for name, field in model.model_fields.items()
}


@pytest.mark.parametrize("name", sorted(_FIELDS))
def test_no_field_takes_a_text_that_shows_nothing(name: str) -> None:
    assert len(_FIELDS) > 30
    for text in _INVISIBLE:
        if (name, text) == ("CouponsQuery.search", " "):
            continue  # a part of a name
        with pytest.raises(ValidationError):
            _FIELDS[name].validate_python(text)


@given(st.text(max_size=20))
def test_a_benefit_takes_the_texts_that_a_reason_takes(text: str) -> None:
    def takes(adapter: TypeAdapter[Any]) -> bool:
        try:
            return bool(adapter.validate_python(text) == text)
        except ValidationError:
            return False

    assert takes(_FIELDS["OtherBenefit.text"]) == takes(TypeAdapter(Reason))
