"""The protocols between the rooms. One file each."""

from claimsvc.ports.admission import Admission, Decision
from claimsvc.ports.api_keys import ApiKeys
from claimsvc.ports.audience import Audience
from claimsvc.ports.audit_log import AuditLog
from claimsvc.ports.campaigns import Campaigns, ChangeAnswer
from claimsvc.ports.claim_records import ClaimRecords
from claimsvc.ports.claims import AnyClaims, Claims, LockWait, PendingOutcome, Stages, Strategy
from claimsvc.ports.code_counters import CodeCounters
from claimsvc.ports.codes import Codes
from claimsvc.ports.combining import (
    AllClaimed,
    Answer,
    BatchDecisions,
    CombineObserver,
    FencedAdmission,
    HandedBatch,
    HandOver,
    Mailbox,
    Post,
)
from claimsvc.ports.counters import Counters
from claimsvc.ports.coupons import Coupons
from claimsvc.ports.erasure import Erasure
from claimsvc.ports.exports import Exports
from claimsvc.ports.lock import Lease, Lock, LockObserver
from claimsvc.ports.lock_admin import LockAdmin
from claimsvc.ports.maintenance import Maintenance
from claimsvc.ports.observers import (
    BatchObserver,
    HealthCheck,
    JobObserver,
    MasterObserver,
    QuotaObserver,
    ReadinessObserver,
    StorageObserver,
    TicketObserver,
)
from claimsvc.ports.quotas import PendingStandings, Quotas
from claimsvc.ports.redemptions import Redemptions
from claimsvc.ports.tickets import Dispatched, FailedTry, Joined, Joins, Progress, Tickets
from claimsvc.ports.tokens import Tokens
from claimsvc.ports.transitions import Transitions

__all__ = [
    "Admission",
    "AllClaimed",
    "Answer",
    "AnyClaims",
    "ApiKeys",
    "Audience",
    "AuditLog",
    "BatchDecisions",
    "BatchObserver",
    "Campaigns",
    "ChangeAnswer",
    "ClaimRecords",
    "Claims",
    "CodeCounters",
    "Codes",
    "CombineObserver",
    "Counters",
    "Coupons",
    "Decision",
    "Dispatched",
    "Erasure",
    "Exports",
    "FailedTry",
    "FencedAdmission",
    "HandOver",
    "HandedBatch",
    "HealthCheck",
    "JobObserver",
    "Joined",
    "Joins",
    "Lease",
    "Lock",
    "LockAdmin",
    "LockObserver",
    "LockWait",
    "Mailbox",
    "Maintenance",
    "MasterObserver",
    "PendingOutcome",
    "PendingStandings",
    "Post",
    "Progress",
    "QuotaObserver",
    "Quotas",
    "ReadinessObserver",
    "Redemptions",
    "Stages",
    "StorageObserver",
    "Strategy",
    "TicketObserver",
    "Tickets",
    "Tokens",
    "Transitions",
]
