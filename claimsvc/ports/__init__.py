"""The protocols between the rooms: what a strategy offers, and what it needs."""

from claimsvc.ports.admitting import ApiKeys, Quotas, Tokens
from claimsvc.ports.claiming import AnyClaims, ClaimAnswer, Claims, Counters, LockWait, Stages, Strategy
from claimsvc.ports.keeping import AuditLog, Decision, Erasure, Exports, Shelf, Storage, Upkeep
from claimsvc.ports.locking import Lease, Lock, LockObserver, Locksmith
from claimsvc.ports.observing import (
    BatchObserver,
    HealthCheck,
    JobObserver,
    MasterObserver,
    QuotaObserver,
    StorageObserver,
)
from claimsvc.ports.offering import Audience, Campaigns, ChangeAnswer, CodeCounters, Codes, Transitions

__all__ = [
    "AnyClaims",
    "ApiKeys",
    "Audience",
    "AuditLog",
    "BatchObserver",
    "Campaigns",
    "ChangeAnswer",
    "ClaimAnswer",
    "Claims",
    "CodeCounters",
    "Codes",
    "Counters",
    "Decision",
    "Erasure",
    "Exports",
    "HealthCheck",
    "JobObserver",
    "Lease",
    "Lock",
    "LockObserver",
    "LockWait",
    "Locksmith",
    "MasterObserver",
    "QuotaObserver",
    "Quotas",
    "Shelf",
    "Stages",
    "Storage",
    "StorageObserver",
    "Strategy",
    "Tokens",
    "Transitions",
    "Upkeep",
]
