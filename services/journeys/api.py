"""Journeys' HTTP face: how many are where, and what one customer is in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from pydantic import BaseModel

from services.journeys import store, telling
from services.journeys.engine import HELD_OUT
from services.journeys.neighbours import Away, Neighbours
from services.journeys.settings import JourneysSettings
from services.journeys.store import Attributed, Tally
from services.journeys.story import Story
from services.journeys.whynot import NoSuchMessage
from shared.clock import Clock
from shared.contracts.streams import partition_of
from shared.database.engine import Database
from shared.http import error, face, may_read
from shared.processing.playbooks import Shelf

MOST_ENROLLMENTS = 500
"""How many of a customer's enrollments are shown, the latest first."""

CustomerKey = Annotated[str, Path(description="The user id, else the anonymous id; percent-encoded.")]

_LEFT = frozenset({"watching", "ended"})


class HeldOut(BaseModel, use_attribute_docstrings=True):
    """Who entered a journey and got nothing of it, so that what it brings can be seen."""

    entered: int = 0
    """Enrollments of theirs."""
    goal: int = 0
    """How many of them reached the goal in time all the same."""
    lift: float | None = None
    """By how much more often the others reached it: 0.25 is a quarter more. Of enrollments for which it is decided;
    None while nobody who was held out has reached it. It says little before there are some hundred of them."""


class JourneyCounts(BaseModel, use_attribute_docstrings=True):
    """The enrollments of one journey, over all of its versions."""

    journey: str
    """Its name."""
    entered: int = 0
    """Enrollments that began; a restart is none."""
    inside: dict[str, int] = {}
    """By status: `waiting`, `listening` (for an event or a click), `sending` (or held), `parked` (by a pause),
    `held_out` (they get nothing, and their goal is watched)."""
    ended: dict[str, int] = {}
    """By reason: `completed`, `goal`, `exit_on`, `unsubscribed`, `restarted`, `removed`, `held_out`, or what an
    `exit` step says."""
    sent: int = 0
    """Messages that went out."""
    goal: int = 0
    """How many of them reached the goal in time, also after they had left; without those who were held out."""
    orders: int = 0
    """Orders that were attributed to this journey: the message clicked last was one of its, or, where none was clicked,
    the one sent last. Each order counts for one journey."""
    attributed: dict[str, float] = {}
    """What those orders are worth by `goal.value`, by the brand's currency of that time. It has nothing to do with
    those who were held out."""
    held_out: HeldOut | None = None
    """Those who entered and got nothing. None where there are none."""


class AllCounts(BaseModel, use_attribute_docstrings=True):
    """How the journeys stand."""

    journeys: list[JourneyCounts]
    """By name; those that are no more in the playbook among them."""


class EnrollmentShown(BaseModel, use_attribute_docstrings=True):
    """One enrollment."""

    id: str
    """By which its messages name it (`enrollment`)."""
    journey: str
    """The journey's name."""
    version: str
    """The version that was begun: a hash of what the journey does."""
    key: str | None
    """What it is about: a cart, say. Null where the journey has no `key`."""
    status: str
    """`waiting`, `listening`, `sending`, `parked`, `held_out` or `ended`."""
    step: str
    """Where it stands, or ended."""
    due: datetime | None
    """When time is the next to move it."""
    entered_at: datetime
    """When it began."""
    ended_at: datetime | None
    """When it ended; null while the customer is inside."""
    reason: str | None
    """How it ended: `completed`, `goal`, `exit_on`, `unsubscribed`, `restarted`, `removed`, `held_out`, or what an
    `exit` step says."""
    goal_at: datetime | None
    """When the goal was reached, also after it had ended."""
    attributed: float | None
    """What the order that reached the goal is worth to it, in `currency`. None where another journey has its value, or
    nothing had been sent."""
    currency: str | None
    """ISO 4217; null where nothing is attributed."""


class CustomerEnrollments(BaseModel, use_attribute_docstrings=True):
    """What a customer is in and has been in."""

    customer: str
    """Their key."""
    enrollments: list[EnrollmentShown]
    """The latest first."""


def create(
    database: Database,
    shelf: Shelf,
    clock: Clock,
    partitions: int,
    settings: JourneysSettings,
    ready: Callable[[], Awaitable[list[str]]],
) -> FastAPI:
    app = face("Rapport journeys", "Where customers are in their journeys.", ready)
    readers = [Depends(may_read(settings.read_keys))]

    @app.get("/v1/journeys", tags=["reading"], dependencies=readers)
    async def journeys() -> AllCounts:
        """How many have entered each journey, where they are, and how they left."""
        async with database.connect() as connection:
            counts = await store.counts(connection)
            mailed, attributed = await store.mailed(connection), await store.attributed(connection)
        return AllCounts(journeys=summed(counts, mailed, attributed))

    @app.get("/v1/customers/{key:path}/enrollments", tags=["reading"], dependencies=readers)
    async def enrollments(key: CustomerKey) -> CustomerEnrollments:
        """What a customer is in and has been in, the latest first."""
        async with database.connect() as connection:
            rows = await store.enrollments_of(connection, partition_of(key, partitions), key, MOST_ENROLLMENTS)
        return CustomerEnrollments(customer=key, enrollments=[_shown(row) for row in rows])

    @app.get("/v1/customers/{key:path}/story", tags=["reading"], dependencies=readers, response_model=Story)
    async def story(
        key: CustomerKey,
        request: Request,
        message: Annotated[str | None, Query(description="A message (name or id) or a journey: only its part.")] = None,
    ) -> Response:
        """Everything that was decided about a customer, in order, each with its rule and, where that is not what was
        wanted, what to do; and why a message was not sent, or a journey never began, where one is asked about."""
        neighbours = Neighbours(settings.segmenter_url, settings.mailer_url, request.headers["authorization"])
        kept, partition = timedelta(days=settings.story_days), partition_of(key, partitions)
        try:
            async with database.connect() as connection:
                found = await telling.story_of(
                    connection, shelf, neighbours, partition, key, message, clock.now(), kept
                )
        except NoSuchMessage as unknown:
            return error(404, "not_found", str(unknown))
        except Away as away:
            return error(503, "unavailable", str(away), {"Retry-After": "1"})
        if found is None:
            return error(404, "not_found", f"no customer has the key {key!r}.")
        return Response(found.as_json(), media_type="application/json", headers={"Cache-Control": "no-store"})

    return app


def summed(
    counts: Sequence[tuple[Tally, int]], mailed: Mapping[str, int], attributed: Sequence[Attributed]
) -> list[JourneyCounts]:
    """The counts by journey, in the order of their names."""
    journeys: dict[str, JourneyCounts] = {}
    decided: defaultdict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    for tally, count in counts:
        of = journeys.setdefault(tally.journey, JourneyCounts(journey=tally.journey))
        of.entered += count
        held_out = HELD_OUT in (tally.status, tally.reason)
        if tally.status == "ended":
            decided[tally.journey, held_out].update({"all": count, "goal": count * tally.goal})
        if tally.status in _LEFT:
            of.ended[tally.reason] = of.ended.get(tally.reason, 0) + count
        else:
            of.inside[tally.status] = of.inside.get(tally.status, 0) + count
        if held_out:
            of.held_out = of.held_out or HeldOut()
            of.held_out.entered += count
            of.held_out.goal += count * tally.goal
        else:
            of.goal += count * tally.goal
    for worth in attributed:
        of = journeys.setdefault(worth.journey, JourneyCounts(journey=worth.journey))
        of.orders += worth.orders
        of.attributed[worth.currency] = float(round(worth.value, 2))
    for name, of in journeys.items():
        of.sent = mailed.get(name, 0)
        if of.held_out is not None:
            of.held_out.lift = _lift(decided[name, False], decided[name, True])
    return [journeys[name] for name in sorted(journeys)]


def _lift(others: Counter[str], held_out: Counter[str]) -> float | None:
    """How much more often the goal was reached by others than by those who were held out."""
    if not others["all"] or not held_out["goal"]:
        return None
    return round((others["goal"] / others["all"]) / (held_out["goal"] / held_out["all"]) - 1, 4)


def _shown(row: store.EnrollmentRow) -> EnrollmentShown:
    return EnrollmentShown(
        id=str(row.id),
        journey=row.journey,
        version=row.version,
        key=row.key or None,
        # That the goal of one who has left is watched on is no business of the reader's.
        status="ended" if row.status in _LEFT else row.status,
        step=row.step,
        due=None if row.status in _LEFT else row.due,
        entered_at=row.entered_at,
        ended_at=row.ended_at,
        reason=row.reason or None,
        goal_at=row.goal_at,
        attributed=None if row.attributed is None else float(round(row.attributed, 2)),
        currency=row.currency or None,
    )
