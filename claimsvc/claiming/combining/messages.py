"""The messages in which instances hand over batches of claims and answer them: lines of text."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from claimsvc.domain import Attempt, Claim, Claimed, ClaimOptions, ClaimState, IdempotencyKey, SoldOut, UnknownCoupon
from claimsvc.domain.stored_answers import decode, encode
from claimsvc.errors import InvariantViolatedError
from claimsvc.ports import Decision, HandedBatch

_HANDED = "handed"
_ANSWERED = "answered"
_SOLD, _SOLD_OUT, _UNKNOWN, _FAILED, _OTHER = "S", "O", "U", "F", "X"


@dataclass(frozen=True, slots=True)
class Handed:
    """A batch that another instance hands over; `sender` is its name."""

    sender: str
    batch: HandedBatch


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a batch. It was not decided if `letters` is empty.

    Args:
        claimed_at: the time of the claims with the letter S.
        others: the outcomes of those with the letter X.
    """

    batch_id: str
    claimed_at: str
    letters: str
    others: str


def handed(sender: str, batch: HandedBatch) -> bytes:
    """Return the message that hands a batch over."""
    attempts = batch.attempts
    options = (
        orjson.dumps([_options(each.options) for each in attempts]).decode()
        if any(each.options is not None for each in attempts)
        else ""
    )
    lines = [_HANDED, sender, batch.coupon_name, batch.id, options, str(len(attempts))]
    lines += [each.claim_id for each in attempts]
    lines += [each.user_id for each in attempts]
    return "\n".join(lines).encode()


def answered(batch_id: str, decisions: Sequence[Decision] | None) -> bytes:
    """Return the answer to a batch; None for one that was not decided, or may have been decided before."""
    if decisions is None:
        return "\n".join([_ANSWERED, batch_id, "", "", ""]).encode()
    letters = []
    claimed_at = ""
    moment: datetime | None = None
    others: list[Any] = []
    for each in decisions:
        if type(each) is Claimed and each.claim.expires_at is None and each.claim.code is None and moment in (
            None,
            each.claim.claimed_at,
        ):
            moment = each.claim.claimed_at
            letters.append(_SOLD)
        elif type(each) is SoldOut:
            letters.append(_SOLD_OUT)
        elif type(each) is UnknownCoupon:
            letters.append(_UNKNOWN)
        elif isinstance(each, Exception):
            letters.append(_FAILED)
        else:
            letters.append(_OTHER)
            others.append(encode(each))
    if moment is not None:
        claimed_at = moment.isoformat()
    return "\n".join(
        [_ANSWERED, batch_id, claimed_at, "".join(letters), orjson.dumps(others).decode() if others else ""]
    ).encode()


def read(message: bytes) -> Handed | Answered | None:
    """Read a message; None if this version does not know its kind."""
    lines = message.decode().split("\n")
    if lines[0] == _ANSWERED and len(lines) == 5:
        return Answered(*lines[1:])
    if lines[0] != _HANDED:
        return None
    _, sender, coupon_name, batch_id, options, count = lines[:6]
    ids, users = lines[6 : 6 + int(count)], lines[6 + int(count) :]
    all_options: Sequence[ClaimOptions | None] = (
        [_options_of(each) for each in orjson.loads(options)] if options else [None] * int(count)
    )
    return Handed(
        sender,
        HandedBatch(
            batch_id,
            coupon_name,
            [
                Attempt(id_, coupon_name, user_id, each)
                for id_, user_id, each in zip(ids, users, all_options, strict=True)
            ],
        ),
    )


def decisions_of(answer: Answered, batch: HandedBatch) -> list[Decision]:
    """Return the decisions on a batch that was decided."""
    claimed_at = datetime.fromisoformat(answer.claimed_at) if answer.claimed_at else None
    others = iter(orjson.loads(answer.others) if answer.others else ())
    decisions: list[Decision] = []
    for letter, attempt in zip(answer.letters, batch.attempts, strict=True):
        if letter == _SOLD and claimed_at is not None:
            claim = Claim(attempt.claim_id, batch.coupon_name, attempt.user_id, ClaimState.ACTIVE, claimed_at)
            decisions.append(Claimed(claim))
        elif letter == _SOLD_OUT:
            decisions.append(SoldOut())
        elif letter == _UNKNOWN:
            decisions.append(UnknownCoupon())
        elif letter == _FAILED:
            decisions.append(InvariantViolatedError("the database refused a claim that the service admitted"))
        else:
            decisions.append(decode(next(others)))  # type: ignore[arg-type]
    return decisions


def _options(options: ClaimOptions | None) -> Mapping[str, Any] | None:
    if options is None:
        return None
    written = asdict(options)
    if options.idempotency_key is not None:
        written["idempotency_key"]["fingerprint"] = options.idempotency_key.fingerprint.hex()
    return written


def _options_of(written: dict[str, Any] | None) -> ClaimOptions | None:
    if written is None:
        return None
    if key := written["idempotency_key"]:
        key = IdempotencyKey(**{**key, "fingerprint": bytes.fromhex(key["fingerprint"])})
    return ClaimOptions(**{**written, "idempotency_key": key})
