"""The messages in which instances hand over batches of claims and answer them: lines of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import orjson

from claimsvc.domain import Attempt, ClaimOptions, ClaimOutcome, IdempotencyKey, TicketLease
from claimsvc.domain.stored_answers import decode, encode
from claimsvc.errors import ClaimsvcError, InvariantViolatedError
from claimsvc.ports import AllClaimed, BatchDecisions, Decision, HandedBatch

# The first line of a message: what it is.
_HANDED = b"handed"
_ALL_CLAIMED = b"all-claimed"
_DECIDED = b"decided"
_DECLINED = b"declined"

# A UUID in its usual text form, and the line break after it.
_ID_LINE = 37


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a batch. `decisions` is None if its receiver has not decided it, and will not."""

    batch_id: str
    decisions: BatchDecisions | None


def handed_batch(id_: str, coupon_name: str, attempts: Sequence[Attempt]) -> HandedBatch | None:
    """Return a batch of these attempts; None if it cannot be handed over, because the database will refuse it."""
    user_ids = "\n".join([each.user_id for each in attempts])
    claim_ids = "\n".join([each.claim_id for each in attempts])
    if user_ids.count("\n") != len(attempts) - 1 or len(claim_ids) != _ID_LINE * len(attempts) - 1:
        return None
    options = [each.options for each in attempts] if any(each.options is not None for each in attempts) else ()
    return HandedBatch(id_, coupon_name, len(attempts), claim_ids, user_ids, options)


def handed(batch: HandedBatch) -> bytes:
    """Return the message that hands a batch over."""
    head = "\n".join([batch.coupon_name, batch.id, str(batch.size)])
    options = orjson.dumps([_options(each) for each in batch.options]) if batch.options else b""
    return b"\n".join([_HANDED, head.encode(), options, f"{batch.claim_ids}\n{batch.user_ids}".encode()])


def answered(batch_id: str, decisions: BatchDecisions | None) -> bytes:
    """Return the answer to a batch; None for one that was not decided, or may have been decided before."""
    if decisions is None:
        return b"%b\n%b\n" % (_DECLINED, batch_id.encode())
    if isinstance(decisions, AllClaimed):
        return b"%b\n%b\n%b" % (_ALL_CLAIMED, batch_id.encode(), decisions.claimed_at.isoformat().encode())
    written = [None if isinstance(each, ClaimsvcError) else encode(each) for each in decisions]
    return b"%b\n%b\n%b" % (_DECIDED, batch_id.encode(), orjson.dumps(written))


def read(message: bytes) -> HandedBatch | Answered | None:
    """Read a message; None if it is not one that this version can read."""
    try:
        return _read(message)
    except (ValueError, TypeError, LookupError):
        return None


def _read(message: bytes) -> HandedBatch | Answered | None:
    kind, _, rest = message.partition(b"\n")
    if kind == _HANDED:
        return _read_handed(rest.decode())
    if kind not in (_ALL_CLAIMED, _DECIDED, _DECLINED):
        return None
    batch_id, _, content = rest.decode().partition("\n")
    if kind == _DECLINED:
        return Answered(batch_id, None)
    if kind == _ALL_CLAIMED:
        return Answered(batch_id, AllClaimed(datetime.fromisoformat(content)))
    return Answered(batch_id, [_decision_of(each) for each in orjson.loads(content)])


def _read_handed(text: str) -> HandedBatch:
    coupon_name, batch_id, size, options, claims = text.split("\n", 4)
    count = int(size)
    batch = HandedBatch(
        batch_id,
        coupon_name,
        count,
        claims[: _ID_LINE * count - 1],
        claims[_ID_LINE * count :],
        [_options_of(each) for each in orjson.loads(options)] if options else (),
    )
    lines = {batch.claim_ids.count("\n") + 1, batch.user_ids.count("\n") + 1, len(batch.options) or count}
    if lines != {count}:
        raise ValueError("a batch has another number of claims than it says")
    return batch


def _decision_of(written: Mapping[str, Any] | None) -> Decision:
    if written is None:
        return InvariantViolatedError("the database refused a claim that the service admitted")
    return cast("ClaimOutcome", decode(written))


def _options(options: ClaimOptions | None) -> Sequence[Any] | None:
    if options is None:
        return None
    key = options.idempotency_key
    lease = options.ticket
    # The version before reads five members; it has no tickets.
    of_ticket = () if lease is None else ((lease.ticket_id, lease.place, lease.token),)
    return (
        options.hold_seconds,
        options.attributes,
        options.token,
        options.is_final,
        None
        if key is None
        else (
            key.caller,
            key.key,
            key.fingerprint.hex(),
            key.request_id,
            None if (former := key.former()) is None else former.hex(),
            key.keeps_all,
        ),
        *of_ticket,
    )


def _options_of(written: Sequence[Any] | None) -> ClaimOptions | None:
    if written is None:
        return None
    hold_seconds, attributes, token, is_final, key, *of_ticket = written
    lease = TicketLease(*of_ticket[0]) if of_ticket else None
    return ClaimOptions(hold_seconds, None if key is None else _key_of(*key), attributes, token, is_final, lease)


def _key_of(
    caller: str, key: str, fingerprint: str, request_id: str, former_fingerprint: str | None, keeps_all: bool
) -> IdempotencyKey:
    former = None if former_fingerprint is None else bytes.fromhex(former_fingerprint)
    return IdempotencyKey(caller, key, bytes.fromhex(fingerprint), request_id, former, keeps_all)
