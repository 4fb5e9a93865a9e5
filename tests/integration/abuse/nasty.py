"""What nobody should send, and somebody will."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from greedy_playbook import EVENTS, FIELDS, READ, TRAITS
from hypothesis import strategies as st

NUL = "a\x00b"
DEEP: Any = "x"
for _ in range(50):
    DEEP = [DEEP] if isinstance(DEEP, dict) else {"a": DEEP}

TEXTS = (
    "",
    " ",
    NUL,
    "\x00",
    "null",
    "NaN",
    "-0",
    "1e999999",
    "9" * 40,
    "0001-01-01",
    "9999-12-31",
    "9999-12-31T23:59:59.999999-23:59",
    "0000-00-00",
    "--02-29",
    "02-30",
    "a" * 5000,
    # What no index of PostgreSQL holds, not even packed.
    "".join(sha256(str(n).encode()).hexdigest() for n in range(200)),
    "\U0001f4a9\u202e\ufeff\u2028\ud7ff\ufffe",
    "a@b.example\r\nBcc: everybody@c.example",
    "=?utf-8?q?x?=",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}{% for x in range(9999) %}",
    "javascript:alert(1)",
    "https://[::1",
    "https://[\u00f8/",
    "https://e\u2100.example/",
    "https://e\u0301.example/\x00\r\nSet-Cookie: a=b",
    "//evil.example",
    "../../etc/passwd",
    "Europe/Oslo",
    "nb_NO",
    "'; DROP TABLE mailer.messages; --",
    "%s%n\\x00\\",
    "'a'",
)
NUMBERS = (
    0,
    -0.0,
    1,
    -1,
    2**31,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    10**18,
    10**30,
    1e308,
    -1e308,
    5e-324,
    0.1,
)
VALUES: tuple[Any, ...] = (
    *TEXTS,
    *NUMBERS,
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None, 1, "a", {}],
    {"": ""},
    {NUL: NUL},
    {"name": "a", "price": "1e400", "quantity": NUL},
    [{"name": n, "price": n, "product_id": n} for n in range(200)],
    list(range(3000)),
    {str(n): n for n in range(2500)},
    DEEP,
)

CUSTOMERS = ("ada", "a" * 255, "\U0001f4a9" * 255, "a/b?c#d%00", "../..", "a b", "'", "\u202e", "-", "42", "0.5")


class Place(NamedTuple):
    """Where in a call a value stands."""

    event: str
    field: str
    name: str


PLACES = tuple(
    [Place(event, "properties", name) for event, names in READ.items() for name in names]
    + [Place("", "traits", name) for name in TRAITS]
    + [Place("Anything", "traits", "likes"), Place("Anything", "context", "locale"), Place("", "context", "timezone")]
)


def everything_everywhere() -> Iterator[dict[str, Any]]:
    """Each value in each place: a call of a batch."""
    for number, place in enumerate(PLACES):
        for turn, value in enumerate(VALUES):
            fields: dict[str, dict[str, Any]] = {
                "properties": {"cart_id": "c", "total": 20, "product_id": "p", "price": 2, "topic": "news"},
                "traits": {"email": f"c{turn}@example.com"},
                "context": {},
            }
            fields[place.field][place.name] = value
            call = {"type": "track", "event": place.event} if place.event else {"type": "identify"}
            yield {**call, "userId": f"c{turn}", "messageId": f"{number}-{turn}", **fields}


def _whole(value: Any) -> bool:
    try:
        return len(json.dumps(value)) < 20_000
    except ValueError:
        return False


numbers = st.sampled_from(NUMBERS) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
texts = st.integers(0, len(TEXTS) - 1).map(TEXTS.__getitem__) | st.text(max_size=20)
scalars = st.none() | st.booleans() | numbers | texts
values = st.integers(0, len(VALUES) - 1).map(VALUES.__getitem__) | st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=10
)
properties = st.dictionaries(st.sampled_from(FIELDS) | texts, values, max_size=6)
traits = st.dictionaries(st.sampled_from(TRAITS) | texts, values, max_size=6)
times = st.sampled_from(
    (
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "1970-01-01T00:00:00+14:00", "0000-01-01", "2025-02-30"),
        *("2024-12-31T23:59:60Z", "2025-03-01T12:30:00Z", "2025-03-01", "-1", "1740832200", "", NUL, "1e400"),
    )
)
customers = (
    st.sampled_from(CUSTOMERS) | texts | numbers | st.sampled_from(("null", "undefined", "0", 0, "None", " NULL "))
)
calls = st.fixed_dictionaries(
    {"type": st.sampled_from(("track", "track", "track", "identify", "page", "screen", "group", "alias"))},
    optional={
        "event": st.sampled_from((*EVENTS, NUL, "", "a" * 1000, "\U0001f4a9" * 1000, "x" * 1001, "Email Sent")),
        "name": texts,
        "userId": customers,
        "anonymousId": customers,
        "previousId": customers,
        "groupId": values,
        "messageId": texts | numbers,
        "properties": properties | values,
        "traits": traits | values,
        "context": st.dictionaries(st.sampled_from(("locale", "timezone", "historical", "traits")), values) | values,
        "integrations": values,
        "timestamp": times | values,
        "originalTimestamp": times,
        "sentAt": times | values,
        "category": values,
        "_metadata": values,
        NUL: values,
    },
).filter(_whole)
