"""Masters of a test's own."""

from collections.abc import Iterator

import pytest

from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from tests.support.databases import NOWHERE


@pytest.fixture
def own_masters() -> Iterator[EmbeddedServices]:
    """Three masters that a test may stop."""
    with (
        temporary_state_dir() as state,
        embedded_services(state, masters=3, durable=False, database_url=NOWHERE) as services,
    ):
        yield services
