"""The verdict: what must be so of all that went in and came out, whoever was killed meanwhile (docs/faults.md).

`judge` holds the ledger against the tables. What must be so of each customer is in `lives`, of calls in `calls`, of
clicks and opens in `visits`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import msgspec

from tests.chaos import calls, lives, visits
from tests.chaos.calls import Cause
from tests.chaos.ledger import Arrival, Ledger
from tests.chaos.tables import CHANNELS, ENDS, Facts

HANDED_OVER_WITHIN = 10.0
"""Seconds. A hand-over that began before an unsubscribe was acknowledged may reach DATA within 5 of when its process
learnt that it had begun; and a little, since the machine is busy."""
LEARNT_WITHIN = 5.0
"""Seconds more where something kept a process from learning it: it stood still, or PostgreSQL was silent."""

LAST_CODES = 10
"""So many codes the pool has that runs out."""

_CODES = re.compile(r"code=(\S*) rare=(\S*)")


@dataclass
class Verdict:
    """True where nothing is violated."""

    violations: list[str]
    """A line each."""
    counts: Counter[str]
    """What there was, for the report."""

    def __bool__(self) -> bool:
        return not self.violations


def judge(ledger: Ledger, facts: Facts) -> Verdict:
    """Hold what was written down against what the tables say."""
    verdict = Verdict([f"not over: {line}" for line in facts.left_over], Counter())
    _judge_events(ledger, facts, verdict)
    buried = _judge_dead_letters(ledger, facts, verdict)
    verdict.counts["customers"] = len(ledger.customers())
    verdict.violations += lives.wrong(ledger, facts, buried)
    _judge_messages(ledger, facts, verdict)
    _judge_calls(ledger, facts, verdict)
    _judge_visits(ledger, facts, verdict)
    _judge_partings(ledger, facts, verdict)
    return verdict


def _judge_events(ledger: Ledger, facts: Facts, verdict: Verdict) -> None:
    """Each accepted event is in the state exactly once, or in dead letters; each other one at most once."""
    dead = b"\n".join(body for _, _, body in facts.dead)
    for event in ledger.posted.values():
        taken = facts.history.get(event.id, [])
        verdict.counts["events accepted" if event.answered else "events not answered"] += 1
        if len(taken) > 1:
            verdict.violations.append(f"event {event.id} is in the history {len(taken)} times")
        if taken and set(taken) != {event.customer}:
            verdict.violations.append(f"event {event.id} of {event.customer} is in the history of {taken}")
        if taken:
            verdict.counts["events in the state"] += 1
        elif event.id in ledger.deleted:
            verdict.counts["events deleted from the log"] += 1
        elif event.answered and event.id.encode() not in dead:
            verdict.violations.append(f"event {event.id} was accepted and is lost ({event.name} of {event.customer})")
    for id in facts.history.keys() - ledger.posted.keys():
        verdict.violations.append(f"event {id} is in the history, and nobody posted it")
    for id in ledger.refused:
        verdict.counts["events refused by name"] += 1
        if id.encode() not in dead:
            verdict.violations.append(f"event {id} was refused by name and is not in dead letters")


def _judge_dead_letters(ledger: Ledger, facts: Facts, verdict: Verdict) -> set[str]:
    """Nothing is set aside without a reason that we gave. Returns the accepted events that were."""
    buried = set()
    for code, message, body in facts.dead:
        verdict.counts[f"dead letters: {code}"] += 1
        if any(id.encode() in body for id in ledger.refused):
            continue
        if code == "conflicting_duplicate" and any(id.encode() in body for id in ledger.reused):
            continue
        if code == "poison" and "ended the process" in message:
            # It was at hand each time that something else killed its owner: five times in a row.
            buried |= {id for id in ledger.posted if id.encode() in body}
            continue
        verdict.violations.append(f"dead letter {code}: {message}: {body[:900]!r}")
    return buried


def _judge_messages(ledger: Ledger, facts: Facts, verdict: Verdict) -> None:
    """Each cause has one message, and each message one end, which is told once."""
    causes: Counter[Cause] = Counter()
    arrived: defaultdict[str, list[Arrival]] = defaultdict(list)
    for arrival in ledger.arrivals:
        arrived[arrival.message].append(arrival)
        verdict.counts["mails arrived"] += 1
    for row in facts.messages:
        id, status, channel = row["id"], row["status"], row["channel"]
        cause = facts.causes[id]
        # A customer may cool more than once: each time is a cause of its own.
        enrollment = msgspec.json.decode(row["request"])["enrollment"]
        causes[("cooled", enrollment) if row["message"] == "cooled" else cause] += 1
        what = "messages" if channel == "email" else f"{channel} calls"
        verdict.counts[f"{what} {status}" + (f" ({row['reason']})" if status in ("unknown", "failed") else "")] += 1
        told = {end: facts.outcomes[id, f"{CHANNELS[channel]} {end.title()}"] for end in ENDS}
        if channel == "email":
            verdict.violations += _wrong_mail(ledger, row, cause, arrived.pop(id, []), told)
        elif told != {end: int(end == status) for end in ENDS}:
            verdict.violations.append(f"{id} {cause} is {status}, and what was told of it is {told}")
    for cause, count in causes.items():
        if count > 1:
            verdict.violations.append(f"{cause} has {count} messages")
    for message, about in arrived.items():
        verdict.violations.append(f"mail {message} arrived, and nobody asked for it: {about}")


def _wrong_mail(
    ledger: Ledger, row: asyncpg.Record, cause: Cause, about: Sequence[Arrival], told: Mapping[str, int]
) -> Iterator[str]:
    """It was not handed over twice where the mail server may have accepted it; what is unknown says why."""
    status, name = row["status"], f"message {row['id']} {cause}"
    accepted = [one for one in about if one.may_be_accepted]
    # Who follows its links, or looks at it, has the mail, also where that was not known. Who tells of it is heard
    # first, and may then be killed.
    resolved = bool(told["unknown"] and told["sent"] and _was_used(ledger, row["id"]))
    if len(accepted) > 1:
        yield f"{name} was handed over {len(accepted)} times: {about}"
    if status == "sent" and [one.answer[:1] for one in accepted] != ["2"] and not (resolved and accepted):
        yield f"{name} is sent, and the mail server knows only {about}"
    if status in ("skipped", "failed") and accepted:
        yield f"{name} is {status} ({row['reason']}), and the mail server has {about}"
    if status == "unknown" and not _is_explained(ledger, row):
        yield f"{name} is unknown ({row['reason']}) without a cause: {row['taken']}, {about}"
    for one in about:
        if one.cause != cause:
            yield f"{name} arrived as {one.cause}"
        at = ledger.unsubscribed.get((row["customer"], row["topic"]))
        if at is not None and _is_late(ledger, one.data_at, at):
            yield f"{name} was handed over {one.data_at - at:.1f} s after an unsubscribe"
    ends = {"sent", "unknown"} if resolved else {status}
    if told != {end: int(end in ends) for end in ENDS}:
        yield f"{name} is {status}, and what was told of it is {told}"


def _is_explained(ledger: Ledger, row: asyncpg.Record) -> bool:
    if row["reason"] != "interrupted":
        return True  # it names what the mail server did
    pid = int(row["taken"].partition("-")[0])
    return pid in ledger.hurt


def _is_late(ledger: Ledger, data_at: float, unsubscribed: float) -> bool:
    hindered = ledger.losses.hindered(unsubscribed, data_at)
    return data_at > unsubscribed + HANDED_OVER_WITHIN + (LEARNT_WITHIN if hindered else 0.0)


def _was_used(ledger: Ledger, message: str) -> bool:
    return any(visit.message == message for visit in ledger.visits)


def _judge_calls(ledger: Ledger, facts: Facts, verdict: Verdict) -> None:
    rows = [row for row in facts.messages if row["channel"] != "email"]
    verdict.violations += calls.wrong(ledger.calls, rows, facts.causes)
    verdict.counts += calls.counted(ledger.calls)
    reachable = {one.customer for one in ledger.posted.values() if one.name == "identify" and one.id in facts.history}
    # Who declines what a journey is about leaves it, and what it had still to say goes with it.
    declining = {customer for customer, _ in ledger.asked_to_stop}
    for row in rows:
        if row["status"] == "skipped" and row["customer"] in reachable - declining:
            verdict.violations.append(f"{facts.causes[row['id']]} was skipped ({row['reason']}), and wanted")


def _judge_visits(ledger: Ledger, facts: Facts, verdict: Verdict) -> None:
    """What people did counts, and nothing else; and nobody was unsubscribed who did not ask."""
    doubtful = frozenset(id for (id, end), count in facts.outcomes.items() if count and end == "Email Unknown")
    verdict.violations += visits.wrong(ledger.visits, facts.uses, ledger.written_down, doubtful, ledger.losses)
    verdict.counts["links and images visited"] = len(ledger.visits)
    verdict.counts["visits of people"] = sum(n for (_, _, machine), n in facts.uses.items() if not machine)
    verdict.counts["visits of machines"] = sum(n for (_, _, machine), n in facts.uses.items() if machine)
    certain = visits.certain(ledger.visits, ledger.written_down, ledger.losses)
    verdict.counts["visits that had to count"] = sum(1 for _ in certain)
    for customer, topic in facts.stopped - ledger.asked_to_stop:
        verdict.violations.append(f"{customer} is unsubscribed from {topic}, and has not asked for it")
    for customer, topic in ledger.unsubscribed.keys() - facts.stopped:
        verdict.violations.append(f"{customer} unsubscribed from {topic}, and nobody was told")


def _judge_partings(ledger: Ledger, facts: Facts, verdict: Verdict) -> None:
    """Whoever leaves is called once, and has a code that nobody else has."""
    leaving = [
        event.properties["closing"]
        for event in ledger.posted.values()
        if event.name == "Account Closed" and event.id in facts.history
    ]
    if facts.tasks != Counter(leaving):
        wrong = {key for key in {*facts.tasks, *leaving} if facts.tasks[key] != leaving.count(key)}
        verdict.violations.append(f"not called once: {sorted(wrong)}")
    pools = Counter(pool for pool, _ in facts.codes.values())
    verdict.counts["codes issued"] = pools.total()
    verdict.counts["tasks"] = facts.tasks.total()
    # A partition whose claim was cut off, and asked for once more, holds a code for whoever leaves there next.
    least, most = min(len(leaving), LAST_CODES - facts.last_held), min(len(leaving), LAST_CODES)
    if pools["bye"] != len(leaving) or not least <= pools["last"] <= most:
        held = f"{facts.last_held} of the last are held"
        verdict.violations.append(f"{len(leaving)} customers left, and were issued {dict(pools)}; {held}")
    holders: defaultdict[str, set[Cause]] = defaultdict(set)
    for arrival in ledger.arrivals:
        if arrival.cause[0] != "parting":
            continue
        said = _CODES.search(arrival.text)
        code, rare = said.groups() if said is not None else ("", "")
        if code not in facts.codes or (rare and rare not in facts.codes):
            verdict.violations.append(f"{arrival.cause} tells of {code!r} and {rare!r}, which nobody issued")
        for one in filter(None, (code, rare)):
            holders[one].add(arrival.cause)
    for code, causes in holders.items():
        if len(causes) > 1:
            verdict.violations.append(f"{code} went to {sorted(causes)}")
