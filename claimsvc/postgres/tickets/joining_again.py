"""Joining a queue with an idempotency key: who repeats a request gets the answer of the first one."""

from collections.abc import Mapping, Sequence

from claimsvc.domain import IdempotencyKey, JoinRequest, KeyReused, Queued, Replayed
from claimsvc.domain.admission import AnswerRecord, replay
from claimsvc.ports import Joined


def key_of(request: JoinRequest) -> IdempotencyKey | None:
    """The idempotency key of a request; None without one."""
    return request.options.idempotency_key if request.options is not None else None


def first_of_each_key(
    requests: Sequence[JoinRequest], answers: Mapping[tuple[str, str], AnswerRecord]
) -> list[JoinRequest]:
    """Return the requests whose answers are neither stored nor those of an earlier request with the same key."""
    known = set(answers)
    new = []
    for request in requests:
        key = key_of(request)
        if key is None or (key.caller, key.key) not in known:
            new.append(request)
        if key is not None:
            known.add((key.caller, key.key))
    return new


def with_answers(
    requests: Sequence[JoinRequest],
    results: Mapping[str, Joined | None],
    answers: Mapping[tuple[str, str], AnswerRecord],
    in_doubt: bool,
) -> tuple[list[Joined | None], list[tuple[IdempotencyKey, Queued]]]:
    """Return what each request results in, and the answers to store.

    Args:
        requests: all of the batch.
        results: those of the requests that `first_of_each_key` returned, by their ids.
        answers: those that were stored before.
        in_doubt: see `replay`.
    """
    joined: list[Joined | None] = []
    to_store: list[tuple[IdempotencyKey, Queued]] = []
    known = dict(answers)
    unanswered: dict[tuple[str, str], Joined | None] = {}
    for request in requests:
        key = key_of(request)
        result = results.get(request.ticket_id)
        if key is not None:
            name = key.caller, key.key
            if (answer := known.get(name)) is not None:
                replayed: Replayed | KeyReused | Queued = replay(answer, key, in_doubt)
                result = replayed
            elif isinstance(result, Queued):
                to_store.append((key, result))
                known[name] = AnswerRecord(key.fingerprint, result, key.request_id)
            else:
                # What repeats a request that was refused is refused as well.
                result = unanswered.setdefault(name, result)
        joined.append(result)
    return joined, to_store
