"""All repositories, on a pool of connections for claims and another one for slow reads."""

from dataclasses import dataclass
from typing import Self

from claimsvc.ports import StorageObserver
from claimsvc.postgres.audit import PostgresAuditLog
from claimsvc.postgres.campaigns import PostgresCampaigns
from claimsvc.postgres.claiming.dispatcher import Dispatcher
from claimsvc.postgres.claims import PostgresClaims
from claimsvc.postgres.code_changes import CodeChanges, CodesChanged
from claimsvc.postgres.codes import PostgresCodes
from claimsvc.postgres.coupons import PostgresCoupons
from claimsvc.postgres.database import Database
from claimsvc.postgres.erasure import PostgresErasure
from claimsvc.postgres.exports import PostgresExports
from claimsvc.postgres.keys import PostgresKeys
from claimsvc.postgres.lists import PostgresAudience
from claimsvc.postgres.maintenance import PostgresMaintenance
from claimsvc.postgres.migrations import SchemaCheck
from claimsvc.postgres.row_holders import RowHolders
from claimsvc.postgres.tickets import PostgresTickets


@dataclass(frozen=True, slots=True)
class Repositories:
    """One repository for each family of tables. Other rooms get single repositories, as ports."""

    admission: Dispatcher
    coupons: PostgresCoupons
    campaigns: PostgresCampaigns
    claims: PostgresClaims
    codes: PostgresCodes
    audience: PostgresAudience
    keys: PostgresKeys
    audit_log: PostgresAuditLog
    exports: PostgresExports
    erasure: PostgresErasure
    maintenance: PostgresMaintenance
    check_schema: SchemaCheck
    row_holders: RowHolders
    tickets: PostgresTickets

    @classmethod
    def on(
        cls,
        database: Database,
        *,
        observer: StorageObserver,
        codes_changed: CodesChanged | None = None,
        reads: Database | None = None,
    ) -> Self:
        """Build all repositories.

        Args:
            database: where statements run.
            observer: receives transactions and violated invariants.
            codes_changed: see `CodesChanged`; None if this process does not count codes. Then each change, except
                a claim, leaves a mark for one that does.
            reads: where lists, searches, exports, the audit's pages and counts run, so that none of them keeps a claim
                from its connection; `database` if None.
        """
        reads = database if reads is None else reads
        changes = CodeChanges(codes_changed)
        return cls(
            admission=Dispatcher(database, observer=observer, codes_changed=changes.committed),
            coupons=PostgresCoupons(database, reads=reads),
            campaigns=PostgresCampaigns(database, changes=changes),
            claims=PostgresClaims(database, reads=reads, changes=changes),
            codes=PostgresCodes(database, reads=reads, changes=changes),
            audience=PostgresAudience(database),
            keys=PostgresKeys(database),
            audit_log=PostgresAuditLog(database, reads=reads),
            exports=PostgresExports(reads),
            erasure=PostgresErasure(database),
            maintenance=PostgresMaintenance(database, observer=observer, changes=changes),
            check_schema=SchemaCheck(database),
            row_holders=RowHolders(reads),
            tickets=PostgresTickets(database, reads=reads),
        )
