"""The route that erases a user; it needs a key."""

from dataclasses import asdict, dataclass
from typing import Annotated

from aiohttp import web
from pydantic import Field

from claimsvc import domain
from claimsvc.application import users
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply


@dataclass(frozen=True, slots=True)
class ErasedBody:
    """What was erased. `erased_as` replaces the user's id in its claims and tickets; it does not identify the user."""

    erased_as: Annotated[str, Field(examples=["erased-8e03978e-40d5-43e8-bc93-6894a57f9324"])]
    coupons: int
    claims: int
    list_entries: int
    answers: int
    tickets: int


async def erase_user(request: web.Request, path: parameters.UserPath) -> Reply:
    """Erase a user. In its claims and tickets, also ended ones, a random name replaces the user's id, so that all
    counts stay the same. Tickets that have not ended leave. The user's entries in lists and its stored responses are
    deleted. A repetition erases what was added since."""
    erased = await users.erase(request.app[SERVICES].erasure, request[CALLER], path.id, request_id=request[REQUEST_ID])
    return ok(ErasedBody(**asdict(erased)))


ROUTES: tuple[Route, ...] = (
    Route(
        "DELETE",
        "/api/users/{id}",
        erase_user,
        tag="operations",
        summary="Erase a user",
        success=Success(200, "The user is erased.", ErasedBody),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.USERS_ERASE),
    ),
)
