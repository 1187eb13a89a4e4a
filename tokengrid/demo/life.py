"""The life of one call, as its gateway lives it: a generator that asks, is answered, and asks on.

reserve → route → (fail, be routed anew) → serve, perhaps in parts → settle and report. Whatever goes wrong
on the way, the hold ends: settled, released, or, where the caller dies, expired by the ledger itself. It
must not know how what it asks is sent.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from shared.contracts import quota as q
from shared.contracts import routing as r
from shared.contracts.base import Command, Usage
from shared.units import largest_remainder
from tokengrid.demo.subscribers import bought
from tokengrid.demo.traffic import Planned

TTL_S = 300
LATE_S = 2 * TTL_S
OUTPUT_TOKENS_MIN = 256  # what a gateway holds when nobody says how long the answer may become
RETRY_PAUSE_MS = 40  # from one deployment to the next

FAILED: r.Outcome = "error"
THROTTLED: r.Outcome = "throttled"

Service = Literal["quota", "routing"]
Answer = dict[str, Any]


class Ask(NamedTuple):
    """A command for a service; its answer is `{"ok": …}` or `{"error": …}`."""

    service: Service
    command: Command


class End(NamedTuple):
    """What became of a call. `code`: of the refusal or release; tokens and millipoints as they were debited."""

    outcome: Literal["settled", "released", "refused", "abandoned"]
    code: str = ""
    tokens: int = 0
    amount: int = 0


Life = Generator[list[Ask], list[Answer], End]


def life(call: Planned) -> Life:
    """One call from its arrival to its end."""
    return (yield from _Life(call).run())


class _Life:
    def __init__(self, call: Planned) -> None:
        self.call = call
        self.who = call.subscriber
        self.name = call.name
        self.at = call.at
        self.tokens = 0
        self.amount = 0
        self.asked = 0

    def run(self) -> Life:
        call = self.call
        held = yield from self._hold()
        if "error" in held:
            return End("refused", held["error"]["code"])
        place = yield from self._place()
        if "error" in place:
            yield [self._release(place["error"]["code"])]
            return End("released", place["error"]["code"])
        chosen = place["ok"]
        if call.cancelled:
            yield [self._release("cancelled"), self._report(chosen, "cancelled")]
            return End("released", "Cancelled")
        return (yield from self._serve(held["ok"], chosen))

    # --- before the first token ----------------------------------------------------------------
    def _hold(self) -> Generator[list[Ask], list[Answer], Answer]:
        (answer,) = yield [self._reserve()]
        if _code(answer) == "InsufficientQuota" and self.who.buys_more_fen:
            self.name += "-again"
            _, answer = yield [self._buy(), self._reserve()]
        return answer

    def _place(self) -> Generator[list[Ask], list[Answer], Answer]:
        """The answer of the routing that held; what fails or has too much to do is left out of the next."""
        excluded: tuple[str, ...] = ()
        troubles = [FAILED] * self.call.failures + [THROTTLED] * self.call.throttled
        while True:
            (answer,) = yield [self._route(excluded)]
            if "error" in answer or not troubles:
                return answer
            yield [self._report(answer["ok"], troubles.pop())]
            excluded = (*excluded, answer["ok"]["deployment"])
            self.at += timedelta(milliseconds=RETRY_PAUSE_MS)

    # --- while it runs ---------------------------------------------------------------------------
    def _serve(self, held: Answer, chosen: Answer) -> Life:
        call = self.call
        output = min(call.output, held.get("max_output_tokens", call.output))
        shares = largest_remainder(output, [1] * call.parts)
        pause = timedelta(milliseconds=call.duration_ms // call.parts)
        for number, share in enumerate(shares[:-1]):
            self.at += pause
            usage = self._usage(share, first=number == 0)
            extension = [] if held.get("final") else [self._extend(max(1, held["amount"] // call.parts))]
            self._count(usage, (yield [self._settle(chosen, usage, final=False), *extension])[0])
        if call.crashes:
            if self.tokens:  # the caller is gone; where the call ran, they know what they had served
                yield [self._report(chosen, "cancelled", self._usage(sum(shares[:-1]), first=True))]
            return End("abandoned", "", self.tokens, self.amount)
        self.at = max(self.at, call.at + timedelta(milliseconds=call.duration_ms))
        if call.late:
            self.at += timedelta(seconds=LATE_S)
        usage = self._usage(shares[-1], first=len(shares) == 1)
        served = self._usage(output, first=True)
        answer, _ = yield [self._settle(chosen, usage, final=True), self._report(chosen, "ok", served)]
        self._count(usage, answer)
        if "error" in answer:
            return End("released", _code(answer), self.tokens, self.amount)
        if call.reversed_percent and answer["ok"]["amount"] > 0:
            yield [self._reverse(answer["ok"])]
        return End("settled", "", self.tokens, self.amount)

    def _usage(self, output: int, first: bool) -> Usage:
        """The tokens of one part: the input is charged with the first."""
        call = self.call
        return Usage(input=call.input if first else 0, cached_input=call.cached_input if first else 0, output=output)

    def _count(self, usage: Usage, answer: Answer) -> None:
        if "ok" in answer:
            self.tokens += usage.total
            self.amount += answer["ok"]["amount"]

    # --- what is asked ---------------------------------------------------------------------------
    def _common(self, suffix: str) -> dict[str, Any]:
        return {
            "operator": self.who.operator,
            "account": self.who.account,
            "request_id": f"{self.name}{suffix}",
            "occurred_at": self.at,
        }

    def _next(self) -> str:
        self.asked += 1
        return f"/{self.asked}"

    def _reserve(self) -> Ask:
        call = self.call
        # Nobody knows the answer's length: what a gateway holds is a bound, here the next power of two.
        output_max = max(OUTPUT_TOKENS_MIN, 1 << call.output.bit_length()) // (2 if call.parts > 1 else 1)
        usage = Usage(input=call.input, cached_input=call.cached_input, output=output_max)
        return Ask(
            "quota",
            q.Reserve(
                **self._common(""),
                model=call.model,
                max_usage=usage,
                ttl_s=TTL_S,
                accept_partial=call.accept_partial,
                call=call.name,
            ),
        )

    def _buy(self) -> Ask:
        fen = self.who.buys_more_fen
        return Ask(
            "quota",
            q.Grant(
                **self._common("/buys"),
                amount=bought(fen, self.who.points_per_yuan),
                source="purchase",
                price_fen=fen,
                plan=self.who.plan,
            ),
        )

    def _extend(self, amount: int) -> Ask:
        return Ask("quota", q.Extend(**self._common(self._next()), reservation=self.name, amount=amount, ttl_s=TTL_S))

    def _settle(self, chosen: Answer, usage: Usage, final: bool) -> Ask:
        return Ask(
            "quota",
            q.Settle(
                **self._common(self._next()),
                reservation=self.name,
                usage=usage,
                final=final,
                deployment=chosen["deployment"],
                serving_operator=chosen["serving_operator"],
            ),
        )

    def _release(self, reason: str) -> Ask:
        return Ask("quota", q.Release(**self._common(self._next()), reservation=self.name, reason=reason))

    def _reverse(self, debit: Answer) -> Ask:
        return Ask(
            "quota",
            q.Reverse(
                **self._common(self._next()),
                debit=debit["request_id"],
                amount=max(1, debit["amount"] * self.call.reversed_percent // 100),
                reason="goodwill",
            ),
        )

    def _route(self, excluded: tuple[str, ...]) -> Ask:
        call = self.call
        given = call.input + call.cached_input
        return Ask(
            "routing",
            r.Route(
                operator=self.who.operator,
                call=self._call_id,
                account=self.who.account,
                model=call.model,
                tokens=given + call.output,
                input_tokens=given,
                region=self.who.region,
                exclude=excluded,
                lease_s=TTL_S,
                occurred_at=self.at,
            ),
        )

    def _report(self, chosen: Answer, outcome: r.Outcome, usage: Usage | None = None) -> Ask:
        return Ask(
            "routing",
            r.Report(
                operator=self.who.operator,
                call=self._call_id,
                deployment=chosen["deployment"],
                outcome=outcome,
                usage=usage or Usage(),
                ttft_ms=self.call.ttft_ms if outcome == "ok" else None,
                occurred_at=self.at,
            ),
        )

    @property
    def _call_id(self) -> str:
        return self.call.name


def due_at(ask: Ask) -> datetime:
    """When what is asked happened."""
    at: datetime = ask.command.occurred_at  # type: ignore[attr-defined]
    return at


def _code(answer: Answer) -> str:
    return str(answer.get("error", {}).get("code", ""))
