"""Spans of the work on claims: batches, locks, commands to the masters, and transactions.

A batch's span is in the trace of the first traced claim in it, and is linked with all traced claims in it, in both
directions. It starts with the wait for the lock. Further batches under the same lock have spans in the trace of one of
their claims, with a link to the batch that took the lock.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from claimsvc.claiming.batching import Batch, CouponQueue
from claimsvc.domain import Attempt, ClaimOptions, ClaimOutcome
from claimsvc.observability.tracing.spans import begin, failed, span_here, step, within
from claimsvc.ports import (
    BatchDecisions,
    Decision,
    FencedAdmission,
    HandedBatch,
    Lease,
    Lock,
    PendingOutcome,
    Strategy,
)
from claimsvc.redis.masters import Master

# Most coupon names in an attribute.
_MOST_COUPONS = 8


@dataclass(slots=True)
class _Lead:
    """The state of one leading task: the span of the batch that took the lock, and whether it is still undecided."""

    took_lock: Span
    undecided: bool = True


_lead: ContextVar[_Lead | None] = ContextVar("claimsvc_lead", default=None)
# Set while a traced lock is being taken or released: commands to the masters then get spans.
_locking: ContextVar[bool] = ContextVar("claimsvc_locking", default=False)


class TracedWork:
    """`batching.Watch`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def leading(self, queues: Sequence[CouponQueue]) -> Iterator[None]:
        first = next(_traced(answer for queue in queues for answer in queue.answers()), None)
        if first is None:
            # Reset the current span too: this task has inherited that of the claim which scheduled it.
            _lead.set(None)
            with within(None):
                yield
            return
        span = begin(self._tracer, "batch", first)
        lead = _Lead(span)
        _lead.set(lead)
        try:
            with within(span):
                yield
        except BaseException as error:
            if lead.undecided:
                failed(span, error)
            raise
        finally:
            if lead.undecided:
                span.end()

    @contextmanager
    def deciding(self, batches: Sequence[Batch]) -> Iterator[None]:
        claims = list(_traced(answer for batch in batches for answer in batch.answers()))
        lead = _lead.get()
        if lead is not None and lead.undecided:
            lead.undecided = False
            span = lead.took_lock
        elif claims:
            links = (
                [] if lead is None else [Link(lead.took_lock.get_span_context(), {"claimsvc.link": "took the lock"})]
            )
            span = begin(self._tracer, "batch", claims[0], links=links)
        else:
            with within(None):
                yield
            return
        span.set_attribute("claimsvc.claims", sum(len(batch.attempts) for batch in batches))
        span.set_attribute("claimsvc.coupons", [batch.coupon_name for batch in batches[:_MOST_COUPONS]])
        for claim in claims:
            span.add_link(claim.get_span_context(), {"claimsvc.link": "claim"})
            claim.add_link(span.get_span_context(), {"claimsvc.link": "batch"})
        try:
            with within(span):
                yield
        except BaseException as error:
            failed(span, error)
            raise
        finally:
            span.end()


def _traced(answers: Iterable[PendingOutcome]) -> Iterator[Span]:
    """Return the server spans of the traced claims."""
    return (mark for answer in answers if isinstance(mark := getattr(answer, "mark", None), Span))


class TracedStrategy:
    """`ports.Strategy` that attaches the span of each traced claim to its pending outcome, where the batch finds it."""

    def __init__(self, strategy: Strategy) -> None:
        self.name = strategy.name
        self._strategy = strategy

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = self._strategy.claim(coupon_name, user_id, options)
        if (span := span_here.get()) is not None:
            answer.mark = span
        return answer

    async def drain(self) -> None:
        await self._strategy.drain()


class TracedLock:
    """`ports.Lock`."""

    def __init__(self, lock: Lock, tracer: Tracer) -> None:
        self._lock = lock
        self._tracer = tracer

    def hold_free(self, coupon_names: Sequence[str]) -> AbstractAsyncContextManager[Lease]:
        return _TracedHold(self._lock.hold_free(coupon_names), coupon_names, self._tracer)

    def hold(self, coupon_name: str, *, was_busy: bool = False) -> AbstractAsyncContextManager[Lease]:
        return _TracedHold(self._lock.hold(coupon_name, was_busy=was_busy), [coupon_name], self._tracer)


class _TracedHold(AbstractAsyncContextManager[Lease]):
    """A hold of locks, with one span for taking and one for releasing them."""

    def __init__(
        self, holding: AbstractAsyncContextManager[Lease], coupon_names: Sequence[str], tracer: Tracer
    ) -> None:
        self._holding = holding
        self._coupon_names = coupon_names
        self._tracer = tracer
        self._holds_any = False

    async def __aenter__(self) -> Lease:
        attributes: dict[str, AttributeValue] = {
            "claimsvc.coupons": list(self._coupon_names[:_MOST_COUPONS]),
            "claimsvc.locks.wanted": len(self._coupon_names),
        }
        batch = span_here.get()
        try:
            with self._step("lock acquire", attributes) as span:
                lease = await self._holding.__aenter__()
                self._holds_any = bool(lease.coupon_names)
                if span is not None:
                    span.set_attribute("claimsvc.locks.acquired", len(lease.coupon_names))
                return lease
        except Exception as error:
            if batch is not None:  # the strategy handles the error, so nothing else records it on the batch
                failed(batch, error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if not self._holds_any:
            return await self._holding.__aexit__(kind, error, traceback)
        with self._step("lock release", {}):
            return await self._holding.__aexit__(kind, error, traceback)

    @contextmanager
    def _step(self, name: str, attributes: dict[str, AttributeValue]) -> Iterator[Span | None]:
        with step(self._tracer, name, attributes=attributes) as span:
            token = _locking.set(span is not None)
            try:
                yield span
            finally:
                _locking.reset(token)


def trace_master(master: Master, tracer: Tracer) -> None:
    """Record a span for every command that takes or releases a traced lock on this master."""
    host, _, port = master.name.rpartition(":")
    attributes: dict[str, AttributeValue] = {
        "db.system.name": "redis",
        "server.address": host,
        "server.port": int(port),
    }

    def around_command(name: str) -> AbstractContextManager[object]:
        if not _locking.get():
            return nullcontext()
        return step(tracer, name, kind=SpanKind.CLIENT, attributes=attributes)

    master.surround_commands(around_command)


class TracedAdmission:
    """`ports.FencedAdmission`, with a span for each transaction that decides claims."""

    def __init__(self, admission: FencedAdmission, tracer: Tracer) -> None:
        self._admission = admission
        self._tracer = tracer

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        with self._transaction(len(attempts)):
            return await self._admission.admit(attempts)

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        with self._transaction(len(attempts)):
            return await self._admission.look(attempts)

    async def admit_handed(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> tuple[list[Decision], list[BatchDecisions | None]]:
        with self._transaction(len(attempts) + sum(batch.size for batch in batches)):
            return await self._admission.admit_handed(attempts, batches)

    async def withhold(self, batch: HandedBatch) -> bool:
        with self._transaction(batch.size):
            return await self._admission.withhold(batch)

    async def recall(self, batch: HandedBatch) -> list[Decision]:
        with self._transaction(batch.size):
            return await self._admission.recall(batch)

    def _transaction(self, claims: int) -> AbstractContextManager[Span | None]:
        attributes: dict[str, AttributeValue] = {
            "db.system.name": "postgresql",
            "claimsvc.claims": claims,
        }
        return step(self._tracer, "transaction", kind=SpanKind.CLIENT, attributes=attributes)
