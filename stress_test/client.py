"""The client of the service: creates coupons, sends claims, and reads both back."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import quote

import aiohttp

from stress_test.answers import Answer, answer_of, claim_seen, no_answer
from stress_test.errors import ServiceUnavailableError, UsageError
from stress_test.history import ClaimSeen, CouponPlan, CouponState

# Concurrent requests for creating coupons and reading back; claims use a separate pool.
CONTROL_CONNECTIONS = 32
# Most claims of a coupon that are also read by id. The list, which contains all of them, is always compared.
READ_BY_ID_LIMIT = 10_000
_PAGE_LIMIT = 100  # the limit of the contract
_READ_ATTEMPTS = 5
_READ_RETRY_SECONDS = 0.5


class ReadBackError(Exception):
    """The service could not be read in spite of retries."""


def claim_body(user_id: str, coupon_name: str) -> bytes:
    """Return the body of a claim request. It is made beforehand, so that latencies exclude its encoding."""
    return json.dumps({"user_id": user_id, "coupon_name": coupon_name}).encode()


async def send_claim(session: aiohttp.ClientSession, url: str, body: bytes) -> Answer:
    """Send one claim and read its complete answer. Errors of the network or the service are returned, not raised.

    Args:
        session: its timeout applies to the claim.
        url: of the instance, without a trailing slash.
        body: from `claim_body`.
    """
    try:
        async with session.post(
            f"{url}/api/coupons/claim",
            data=body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            return answer_of(response.status, await response.read())
    except (aiohttp.ClientError, OSError) as failure:
        return no_answer(failure)


def items_of(path: str, page: Mapping[str, object], name: str) -> list[object]:
    """Return the items of a page.

    Raises:
        ReadBackError: it has no such list.
    """
    items = page.get(name)
    if not isinstance(items, list):
        raise ReadBackError(f"GET {path} has no {name}")
    return items


def _coupon_body(coupon: CouponPlan) -> Mapping[str, object]:
    body: dict[str, object] = {"name": coupon.name, "amount": coupon.amount}
    if coupon.queue is not None:
        body["queue"] = asdict(coupon.queue)
    if coupon.starts_in_seconds is not None:
        body["starts_at"] = (datetime.now(UTC) + timedelta(seconds=coupon.starts_in_seconds)).isoformat()
    return body


class ServiceClient:
    """Creates coupons and reads them back, from the instances in turn."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str], admin_key: str) -> None:
        """
        Args:
            session: its timeout applies to each request.
            urls: of the instances, without a trailing slash.
            admin_key: sent as a bearer token only where the contract requires one.
        """
        self._session = session
        self._urls = urls
        self._authorization = {"Authorization": f"Bearer {admin_key}"}
        self._turn = count()
        # The session's own limit would not do: the time a request waits for a connection counts towards its timeout.
        self._bound = asyncio.Semaphore(CONTROL_CONNECTIONS)

    def _url(self, path: str) -> str:
        return self._urls[next(self._turn) % len(self._urls)] + path

    async def create_coupon(self, coupon: CouponPlan) -> None:
        """Create a coupon.

        Raises:
            UsageError: the service refused the admin key.
            ServiceUnavailableError: the service did not answer, or did not create the coupon.
        """
        url = self._url("/api/coupons")
        try:
            async with self._session.post(
                url,
                json=_coupon_body(coupon),
                headers=self._authorization,
                allow_redirects=False,
            ) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, OSError) as failure:
            reason = str(failure) or type(failure).__name__
            raise ServiceUnavailableError(
                f"Nothing answers at {url} ({reason}): start the service, or pass its URL with --url."
            ) from failure
        if status in (401, 403):
            raise UsageError(
                f"The service refused the admin key (status {status}): "
                "set CLAIMSVC_ADMIN_KEY or pass --admin-key, "
                "a key whose SHA-256 is in the service's CLAIMSVC_ADMIN_KEYS."
            )
        if status != 201:
            raise ServiceUnavailableError(
                f"{url} answered {answer_of(status, body).outcome} instead of 201 to the creation of coupon "
                f"{coupon.name}: check that --url is a claim service and that it is ready."
            )

    async def read_back(self, coupon_name: str, claim_ids: Sequence[str]) -> CouponState:
        """Read a coupon, all its claims, and up to `READ_BY_ID_LIMIT` claims by id.

        Claims that timed out may still be in progress, so the coupon is read before and after its list, and
        everything is read again while the two differ.

        Args:
            coupon_name: the coupon.
            claim_ids: of the claims that were answered with 201.

        Raises:
            ReadBackError: a read failed `_READ_ATTEMPTS` times.
        """
        path = f"/api/coupons/{quote(coupon_name, safe='')}"
        for _ in range(_READ_ATTEMPTS):
            before = await self._read_object(path)
            claims = await self._read_claims(f"{path}/claims")
            after = await self._read_object(path)
            if before == after:
                break
            await asyncio.sleep(_READ_RETRY_SECONDS)
        ids = claim_ids[:READ_BY_ID_LIMIT]
        by_id = await asyncio.gather(*(self._read(f"/api/claims/{quote(one, safe='')}") for one in ids))
        amount, remaining, claimed_by = (after.get(key) for key in ("amount", "remaining_amount", "claimed_by"))
        if not isinstance(amount, int) or not isinstance(remaining, int) or not isinstance(claimed_by, list):
            raise ReadBackError(f"GET {path} does not show amount, remaining_amount and claimed_by")
        return CouponState(
            amount=amount,
            remaining_amount=remaining,
            claimed_by=tuple(map(str, claimed_by)),
            claims=claims,
            claims_by_id={one: claim_seen(payload) for one, payload in zip(ids, by_id, strict=True)},
        )

    async def _read_claims(self, path: str) -> tuple[ClaimSeen, ...]:
        claims: list[ClaimSeen] = []
        async for page in self.pages(path):
            for item in items_of(path, page, "items"):
                claim = claim_seen(item)
                if claim is None:
                    raise ReadBackError(f"GET {path} lists an item that is not a claim: {item!r:.100}")
                claims.append(claim)
        return tuple(claims)

    async def pages(self, path: str, *, as_admin: bool = False) -> AsyncIterator[Mapping[str, object]]:
        """Read all pages of a list."""
        cursor: object = None
        seen: set[object] = set()
        while True:
            query = f"?limit={_PAGE_LIMIT}" + (f"&cursor={quote(str(cursor), safe='')}" if cursor else "")
            page = await self._read_object(path + query, as_admin=as_admin)
            yield page
            cursor = page.get("next_cursor")
            if cursor is None:
                return
            if cursor in seen:
                raise ReadBackError(f"GET {path} returns the same cursor again, so it never ends")
            seen.add(cursor)

    async def _read_object(self, path: str, *, as_admin: bool = False) -> Mapping[str, object]:
        payload = await self._read(path, as_admin=as_admin)
        if not isinstance(payload, dict):
            raise ReadBackError(
                f"GET {path} answers with 404" if payload is None else f"GET {path} does not return a JSON object"
            )
        return payload

    async def _read(self, path: str, *, as_admin: bool = False) -> object:
        """Return the JSON value at a path; None for 404. Any other result is retried at the next instance."""
        reason = ""
        headers = self._authorization if as_admin else None
        for attempt in range(_READ_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_READ_RETRY_SECONDS)
            try:
                async with (
                    self._bound,
                    self._session.get(self._url(path), headers=headers, allow_redirects=False) as response,
                ):
                    body = await response.read()
                    if response.status == 404:
                        return None
                    if response.status == 200:
                        payload: object = json.loads(body)
                        return payload
                    reason = answer_of(response.status, body).outcome
            except (aiohttp.ClientError, OSError) as failure:
                reason = no_answer(failure).outcome
            except ValueError:
                reason = "200 without JSON"
        raise ReadBackError(f"GET {path} failed {_READ_ATTEMPTS} times, the last time with {reason}")
