"""Why a message is held or was not sent, which rule that is, and what to do about it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from services.journeys.story import Rule, Teller
from shared.consent import holding
from shared.contracts.messages import EMAIL, POOLS, PUSH, SMS, WEBHOOK
from shared.contracts.story import Asked, Line, Word
from shared.language.places import BRAND, TOPICS


class Because(NamedTuple):
    """`text` goes on after "not sent: " or "held: "; an empty remedy says that there is nothing to be done."""

    text: str
    remedy: str = ""
    rule: Rule | None = None


NOTHING = "Nothing: this is what the journey says."

_BY_THE_JOURNEY = {
    "goal": "the journey took it back, since its goal was reached",
    "exit_on": "the journey took it back, since an exit_on came true",
    "restarted": "the journey took it back, since it began anew",
    "removed": "its journey is not in the playbook any more",
    "held_out": "its customer is held out",
}
_BY_THE_SERVER = {
    "abandoned": "the mail server took too long",
    "connection": "there was no connection to the mail server",
    "deferred": "the mail server wants it later",
    "greylisted": "the mail server wants to see it twice",
    "login": "the mail server did not let us in",
    "not_begun": "no connection to the mail server was free in time",
    "tls": "there was no encrypted connection to the mail server",
    "retry": "the last attempt failed",
}


_BY_THE_RECEIVER = {
    "abandoned": "no connection was free in time",
    "connection": "there was no connection to its address",
    "deferred": "its answer was no yes",
    "failing": "its server failed",
    "redirected": "its address leads elsewhere, where no webhook follows",
    "timeout": "it did not answer in time",
    "interrupted": "the process ended while it was called",
    "receiver_away": "its receiver keeps as many calls waiting as it may",
}


_BY_THE_GATEWAY = {
    "abandoned": "no connection was free in time",
    "connection": "there was no connection to the gateway",
    "deferred": "the gateway's answer was no yes",
    "failing": "the gateway failed",
    "redirected": "the gateway's address leads elsewhere",
    "timeout": "the gateway did not answer in time",
    "interrupted": "the process ended while it was handed over",
}

_UNANSWERED = {
    "connection_lost": "the connection broke",
    "given_up": "the process ended",
    "interrupted": "the process ended",
    "no_answer": "the mail server did not answer",
    "protocol": "the mail server's answer could not be understood",
}

_TRAITS = {EMAIL: "email", SMS: "phone", PUSH: "push_token"}
_SERVERS = {WEBHOOK: "its server", SMS: "the gateway", PUSH: "the gateway"}


def held(teller: Teller, asked: Asked, line: Line) -> Because:
    """Why a message was held."""
    found = _by_policy(teller, asked, line.reason, line)
    if found is not None:
        return found
    if asked.channel in (SMS, PUSH):
        answered = _BY_THE_GATEWAY.get(line.reason, line.reason.replace("_", " "))
        return Because(
            answered, "Nothing: it is handed over again by itself until it expires. If it lasts, look at the gateway."
        )
    if asked.channel == WEBHOOK:
        answered = _BY_THE_RECEIVER.get(line.reason, line.reason.replace("_", " "))
        return Because(
            answered, "Nothing: it is called again by itself until it expires. If it lasts, look at its server."
        )
    server = _BY_THE_SERVER.get(line.reason, line.reason.replace("_", " "))
    return Because(server, "Nothing: it is tried again by itself. If it lasts, look at the mail server.")


def skipped(teller: Teller, asked: Asked) -> Because:
    """Why a message was skipped. The last line of its story, where there is one, says under which playbook."""
    line = asked.lines[-1] if asked.lines and asked.lines[-1].until is None else None
    found = _by_policy(teller, asked, asked.reason, line)
    if found is None:
        return Because(_BY_THE_JOURNEY.get(asked.reason, f"the journey took it back: {asked.reason}"), NOTHING)
    if asked.reason in ("quiet_hours", "cap", "paused") and line is not None:
        # What held it did so for as long as the message was good for.
        until = f", and it was good until {teller.when(asked.expires)} only"
        return Because(found.text + until, found.remedy, found.rule)
    return found


def failed(teller: Teller, asked: Asked) -> Because:
    detail = f" ({asked.detail})" if asked.detail else ""
    match asked.reason:
        case "no_such_address" if asked.channel != EMAIL:
            return Because(
                f"the gateway says that nothing arrives there{detail}",
                f"Send another as the trait {_TRAITS.get(asked.channel, 'email')}.",
            )
        case "gone" if asked.channel in (SMS, PUSH):
            return Because(
                f"the gateway said that it is gone{detail}",
                f"Name another one: RAPPORT_MAILER_{asked.channel.upper()}_URL.",
            )
        case "no_such_address":
            return Because(
                f"the mail server says that there is no such address{detail}",
                "Ask the customer for another address, and send it as the trait email.",
            )
        case "rejected":
            return Because(f"the mail server refused it{detail}", "Read what the server says: it is about this mail.")
        case "private_address":
            return Because(
                f"its address is not public{detail}",
                "Use a public one, or allow the others with RAPPORT_MAILER_WEBHOOK_PRIVATE=true.",
            )
        case "gone":
            where = f"{asked.message}.yaml" if _announces(asked) else "the step"
            return Because(f"its address said that it is gone{detail}", f"Name another address in {where}.")
        case "rendering":
            return Because(
                f"its template failed{detail}",
                f"Correct messages/{asked.message}; `rapport playbook check` says where.",
            )
        case "retries_ran_out" if _announces(asked):
            pool = asked.message.removeprefix(POOLS)
            return Because(
                f"no call succeeded until {teller.when(asked.expires)}{detail}",
                f"Look at its server. `rapport coupons export {pool}` has the code.",
            )
        case "retries_ran_out":
            whose = _SERVERS.get(asked.channel, "the mail server")
            return Because(
                f"no attempt succeeded until {teller.when(asked.expires)}{detail}",
                f"Look at {whose}, or give the step a longer expires.",
            )
    return Because(f"{asked.reason.replace('_', ' ')}{detail}", "Look at the mail server and its log.")


def _announces(asked: Asked) -> bool:
    """Whether it tells the shop of a code (see `MessageRequested.announces`)."""
    return asked.channel == WEBHOOK and asked.message.startswith(POOLS)


def unknown(asked: Asked) -> Because:
    """Why nobody knows whether a mail arrived."""
    return Because(
        f"{_UNANSWERED.get(asked.reason, asked.reason.replace('_', ' '))} while it was handed over, so it may have "
        f"arrived or not",
        "Look for it in the mail server's log. It is never sent again by itself; a click in it tells that it arrived.",
    )


def in_the_way(teller: Teller, topic: str, channel: str = EMAIL) -> Because | None:
    """What would keep a message of this topic and channel from going out today, apart from the clock; None where
    nothing would."""
    book, mailed = teller.books.in_force, teller.mailed
    known = book.topics.get(topic) if book is not None else None
    if known is None:
        return None
    customer = teller.remembered.customer
    if channel == EMAIL and not mailed.address and (customer is None or not customer.address):
        return _no_address()
    if channel != EMAIL and customer is not None and not customer.traits.get(_TRAITS[channel]):
        return _no_address(channel)
    if known.kind != "transactional":
        said = holding(topic, known, mailed.consent)
        wanted = said.subscribed if said is not None else known.default == "opt_out"
        if not mailed.consent and customer is not None and topic in customer.consent:
            wanted = customer.consent[topic]
        if not wanted:
            return _no_consent(teller, topic, said, teller.books.current)
    return _suppressed(teller) if mailed.suppressed and channel == EMAIL else None


def _by_policy(teller: Teller, asked: Asked, reason: str, line: Line | None) -> Because | None:
    playbook = line.playbook if line is not None and line.playbook else teller.books.current
    places = teller.books.places(playbook)

    def rule(*path: str | int) -> Rule | None:
        return teller.books.rule(playbook, places.rule(BRAND, *path))

    step = teller.books.rule(playbook, places.step(asked.journey, asked.step))
    match reason:
        case "no_channel":
            setting = f"RAPPORT_MAILER_{asked.channel.upper()}_URL"
            return Because("no gateway is named that would send it", f"Set {setting} for the mailer.")
        case "no_address":
            return _no_address(asked.channel)
        case "invalid_address" if asked.channel == SMS:
            return Because(
                "what is known as the number is none, or says no country",
                "Send it with its country, such as +4740000000, in the trait phone with identify.",
            )
        case "invalid_address" if asked.channel == PUSH:
            return Because("what is known as the device is none", "Send its token in the trait push_token.")
        case "invalid_address":
            return Because("what is known as the address is none", "Send an address in the trait email with identify.")
        case "not_subscribed" | "unsubscribed" if reason == "not_subscribed" or line is not None:
            said = holding(asked.topic, None, teller.mailed.consent)
            return _no_consent(teller, asked.topic, said if reason == "unsubscribed" else None, playbook)
        case "unsubscribed":
            return Because("the journey took it back, since the customer unsubscribed", _HOW_TO_RETURN)
        case "suppressed" if asked.channel != EMAIL:
            return Because(
                "the gateway has said that nothing arrives there",
                f"Send another as the trait {_TRAITS.get(asked.channel, 'email')}.",
            )
        case "suppressed":
            return _suppressed(teller)
        case "topic_removed":
            text = f"its topic {asked.topic} is not in topics.yaml any more"
            return Because(text, f"Put {asked.topic} back into topics.yaml, or give the step another topic.", step)
        case "paused" if line is None or line.note == "journey":
            return paused(teller, asked.journey, playbook)
        case "paused":
            return Because(
                "promotion to this customer is paused", "A step pause: 0d lifts it; else it ends by itself.", step
            )
        case "quiet_hours":
            hours = places.written_in(BRAND, "quiet_hours")
            remedy = "Give the step an expires that is longer than they are, if it should go out in the morning after."
            return Because(f"quiet hours {hours}".rstrip(), remedy, rule("quiet_hours"))
        case "cap":
            limit, _, within = (line.note if line is not None else "").partition(" in ")
            found = teller.books.rule(playbook, places.cap(asked.channel, int(limit or 0), within)) if limit else None
            cap = f"{limit} in {within}" if limit else "so many at most"
            remedy = "Raise the cap, give the step a higher priority, or a longer expires."
            return Because(f"the cap of {cap} has no room", remedy, found or rule("caps"))
        case "no_playbook":
            return Because("no playbook is in force", "Apply one: rapport playbook apply DIR.")
        case "expired":
            text = f"its time was over at {teller.when(asked.expires)}, before it could go"
            return Because(text, "Give the step a longer expires.", step)
        case "draft":
            status = teller.books.rule(playbook, places.journey(asked.journey, "status"))
            return Because("its journey is a draft, which sends nothing", "Set status: live and apply it.", status)
        case "not_due":
            return Because("it is not due yet")
    return None


def paused(teller: Teller, journey: str, playbook: str) -> Because:
    """Who has paused a journey: the playbook, or somebody by hand."""
    places = teller.books.places(playbook)
    if places.written_in(f"journeys/{journey}.yaml", "status") in ("", "paused"):
        status = teller.books.rule(playbook, places.journey(journey, "status"))
        return Because("its journey is paused", "Set status: live and apply the playbook.", status)
    return Because("its journey is paused by hand", f"Let it go on: rapport journeys resume {journey}.")


_HOW_TO_RETURN = (
    "Nothing, unless they change their mind: the page behind the unsubscribe link lets them, or the shop reports Topic "
    "Subscribed."
)


def _no_address(channel: str = EMAIL) -> Because:
    what = {SMS: "number", PUSH: "device"}.get(channel, "address")
    return Because(f"no {what} is known", f"Send the trait {_TRAITS.get(channel, 'email')} with identify.")


def _no_consent(teller: Teller, topic: str, said: Word | None, playbook: str) -> Because:
    rule = teller.books.rule(playbook, teller.books.places(playbook).rule(TOPICS, "topics", topic))
    if said is not None and not said.subscribed:
        where = f" ({said.source})" if said.source else ""
        return Because(f"they said no to {topic} at {teller.when(said.decided_at)}{where}", _HOW_TO_RETURN, rule)
    if said is not None:
        return Because(
            f"they had not said yes to {topic} then",
            f"Nothing: they have since, at {teller.when(said.decided_at)}.",
            rule,
        )
    return Because(
        f"they never said yes to {topic}, which is opt_in",
        f"Ask them, and report the yes: the event Topic Subscribed with topic {topic}, or the trait consent: "
        f"{{{topic}: true}}.",
        rule,
    )


def _suppressed(teller: Teller) -> Because:
    mailed = teller.mailed
    why = (
        "the mail server said that there is no such address"
        if mailed.suppressed == "no_such_address"
        else (mailed.suppressed.replace("_", " ") or "no reason is kept")
    )
    text = f"nothing goes to {mailed.address} since {teller.when(mailed.suppressed_at)}: {why}"
    return Because(text, "Ask the customer for another address, and send it as the trait email.")
