"""Every reason for which ingest takes nothing, or takes one event less: the one list of its error codes."""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """The HTTP status of a request that is refused for it, and what it says to a developer."""

    status: int
    meaning: str


class Rejection(NamedTuple):
    """A refusal of a request or of one event. `event_id` is the client's message id, where it could be read.

    `wait`: the seconds after which the same may be sent again, where that is known.
    """

    code: str
    message: str
    event_id: str = ""
    wait: float = 0.0

    @property
    def status(self) -> int:
        return REASONS[self.code].status


REASONS: dict[str, Reason] = {
    "invalid_json": Reason(400, "What was posted is not JSON (RFC 8259, UTF-8), or holds a number out of range."),
    "invalid_gzip": Reason(400, "The body begins like gzip and cannot be unpacked, or ends too early."),
    "invalid_batch": Reason(400, "The batch has no list `batch`, or a `context` or `integrations` that is no object."),
    "invalid_field": Reason(400, "A field has the wrong type, such as `properties` that is a list."),
    "unknown_type": Reason(400, "An event in a batch has no `type`, or one that is not a call of this API."),
    "missing_field": Reason(400, "A field that this call requires is absent or empty, such as `event` for track."),
    "missing_id": Reason(400, "There is neither a `userId` nor an `anonymousId`."),
    "refused_id": Reason(
        400, "The id shows nothing, or is a placeholder that some code wrote for nobody: `undefined`, `null`, `0`, …"
    ),
    "invalid_id": Reason(400, "The id is longer than 255 characters, or has control characters."),
    "invalid_name": Reason(400, "The name of the event, page or screen has more than 1,000 characters, or U+0000."),
    "invalid_message_id": Reason(400, "The `messageId` has 100 characters or more, or control characters."),
    "invalid_timestamp": Reason(400, "The time is not ISO 8601, or lies before 1970."),
    "too_deep": Reason(400, "Objects and lists are nested more than 64 deep."),
    "missing_key": Reason(401, "There is no write key, neither by Basic auth nor as `writeKey` in the body."),
    "unknown_key": Reason(401, "The write key belongs to no source."),
    "method_not_allowed": Reason(405, "Calls are posted."),
    "event_too_large": Reason(413, "The event is larger than 32 KB (32,768 bytes)."),
    "batch_too_large": Reason(413, "The body is larger than 500 KB (512,000 bytes) unpacked, or than 4 MB merged."),
    "too_many_events": Reason(413, "The batch has more than 2,500 events."),
    "unsupported_encoding": Reason(415, "The body is packed in another way than gzip."),
    "rate_limited": Reason(429, "The write key posts more events than its rate allows. Send the same again later."),
    "internal_error": Reason(500, "A defect of Rapport's own. It is in the log; nothing was answered as taken."),
    "overloaded": Reason(503, "More bytes wait for the log than this process may hold. Send the same again."),
    "log_unavailable": Reason(503, "The log has not confirmed in time; it may have the events. Send the same again."),
    "not_ready": Reason(503, "This process is starting or stopping. Send the same again; another one answers."),
}
