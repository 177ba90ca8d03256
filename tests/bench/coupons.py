"""The coupons that contestants claim from."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.bench.contestants import DEFAULT_STRATEGY, Contestant, Server
from tests.bench.features import PLAIN, Feature
from tests.bench.growth import clone_coupon, fill_claims
from tests.bench.servers import Servers

_PLENTY = 100_000_000
_CODES_AT_ONCE = 100_000  # the service generates no more in one request
_HTTP_SECONDS = 60.0  # which codes take


@dataclass(slots=True)
class Coupons:
    """Coupons that a contestant claims from, and the number of the next user who has not claimed yet."""

    names: list[str]
    next_user: int = 0


@dataclass(slots=True)
class CouponMaker:
    """Makes coupons, through the service or in bulk.

    Args:
        servers: where the service is asked.
        report: is told, in a few words, what happens.
    """

    servers: Servers
    report: Callable[[str], None]
    _kept: dict[Contestant, Coupons] = field(default_factory=dict)
    _count: int = 0

    def of(self, contestant: Contestant, most_claims: int = 0) -> Coupons:
        """The coupons for the next measurement: many, or grown ones, are kept; a single one is always fresh.

        Args:
            contestant: who claims from them.
            most_claims: there are codes, and coupons for users who claim again, for so many claims.
        """
        server = contestant.servers[0]
        if contestant.is_kept:
            if contestant not in self._kept:
                self._kept[contestant] = self._make(contestant, server)
            return self._kept[contestant]
        if server.kind in {"floor", "responder"}:
            return Coupons([self._next_name()])  # nobody sells it where nobody looks it up
        codes = most_claims if contestant.feature.codes else 0
        amount = 1 if contestant.sold_out or codes else _PLENTY
        name = self._create(server, contestant.strategy, amount, contestant.feature)
        if codes:
            self._add_codes(server, name, codes)
        if not contestant.users:
            return Coupons([name])
        with self._connected(server) as connection:
            return Coupons([name, *clone_coupon(connection, name, most_claims // contestant.users + 1)])

    def knows_strategy(self, strategy: str) -> bool:
        """Whether the service makes a coupon of that strategy."""
        try:
            self._create(Server("claimsvc"), strategy, 1)
        except urllib.error.HTTPError as error:
            if error.code == 400:
                return False
            raise
        return True

    def _make(self, contestant: Contestant, server: Server) -> Coupons:
        first = self._create(server, contestant.strategy, _PLENTY)
        with self._connected(server) as connection:
            names = [first, *clone_coupon(connection, first, contestant.coupons - 1)]
            if contestant.existing_claims:
                self.report(f"Filling in {contestant.name}")
                fill_claims(connection, first, contestant.existing_claims)
        return Coupons(names, next_user=contestant.existing_claims)

    def _connected(self, server: Server) -> "psycopg.Connection":
        return psycopg.connect(self.servers.postgres.url_of(server.database), autocommit=True)

    def _next_name(self) -> str:
        self._count += 1
        return f"coupon-{self._count:06d}-000000"

    def _create(self, server: Server, strategy: str, amount: int, feature: Feature = PLAIN) -> str:
        name = self._next_name()
        body = {"name": name, "amount": amount, **feature.coupon}
        if strategy != DEFAULT_STRATEGY:
            body["strategy"] = strategy
        self._post(server, "/api/coupons", body)
        return name

    def _add_codes(self, server: Server, name: str, count: int) -> None:
        for start in range(0, count, _CODES_AT_ONCE):
            body = {"count": min(_CODES_AT_ONCE, count - start), "pattern": "AAAAAAAA-9999"}
            self._post(server, f"/api/coupons/{name}/codes/generate", body)
        # So that this work is over when measuring begins.
        with self._connected(server) as connection:
            connection.execute("VACUUM (ANALYZE) codes")

    def _post(self, server: Server, path: str, body: Mapping[str, Any]) -> None:
        maker = server if server.kind == "claimsvc" else Server("claimsvc", database=server.database)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.servers.start(maker).port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.servers.admin_key}"},
        )
        urllib.request.urlopen(request, timeout=_HTTP_SECONDS).close()
