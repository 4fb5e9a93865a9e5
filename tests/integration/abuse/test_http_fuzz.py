"""Every HTTP interface, asked what its OpenAPI allows and what it does not, with every key and without."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any
from urllib.parse import quote

import msgspec
import nasty
import pytest
import schemathesis
from conftest_abuse import READ_KEY, WRITE_KEY, Siege
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

_CHECKS: list[Any] = [
    schemathesis.checks.load_all_checks() or schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    )
]
_SECRETS = (WRITE_KEY, READ_KEY, "Traceback", 'File "', "asyncpg", "sqlalchemy", "postgresql://", "/services/", "0x7f")
_AUTHS = (None, (WRITE_KEY, ""), (READ_KEY, ""), ("\u00e9 wrong", "wrong"))


def check(answer: Any) -> None:
    """No fault of ours, no leak, and every refusal says why."""
    assert answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code >= 400 and "text/html" not in str(answer.headers.get("content-type")):
        said = answer.json()
        assert {"code", "message"} <= said.keys()
        assert said["code"]
        assert said["message"]
    assert not [secret for secret in _SECRETS if secret in answer.text], answer.text


@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
async def test_what_openapi_says_is_so_and_nothing_else_does_harm(siege: Siege) -> None:
    await siege.post([{"type": "track", "userId": "ada", "event": "Anything", "messageId": "1"}])
    await siege.settled()
    address = siege.house.address

    def ask(service: str) -> None:
        schema = schemathesis.openapi.from_url(f"{address}{service}/openapi.json")
        schema.config.base_url = address + service
        for found in schema.get_all_operations():
            operation = found.ok()
            if re.fullmatch("/v1/[a-z]", operation.path):
                continue  # the short name of another one
            cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

            @settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
            @given(case=cases, auth=st.sampled_from(_AUTHS))
            def holds(case: schemathesis.Case, auth: tuple[str, str] | None) -> None:
                answer = case.call(auth=auth and tuple(part.encode() for part in auth))
                case.validate_response(answer, checks=_CHECKS)
                check(answer)

            holds()

    for service in ("", "/segmenter", "/journeys", "/mailer"):
        await asyncio.to_thread(ask, service)


async def test_whatever_is_asked_for_is_found_or_refused(siege: Siege) -> None:
    key = (READ_KEY, "")
    beyond = msgspec.msgpack.encode(("9999-12-31T23:59:59-23:59", 3, "", ""))
    places = [base64.urlsafe_b64encode(place).decode() for place in (beyond, b"\x94", b"\xff")]
    await siege.post([{"type": "track", "userId": "ada", "event": "Anything", "messageId": "1"}])
    await siege.settled()
    for place in places:
        check(await siege.http.get(f"/segmenter/v1/customers/ada?before={place}", auth=key))
    for text in (*nasty.TEXTS, *nasty.CUSTOMERS):
        quoted = quote(text, safe="")
        for path in (
            f"/segmenter/v1/customers/{quoted}",
            f"/segmenter/v1/customers/ada?before={quoted}&limit=1",
            f"/segmenter/v1/customers/ada?limit={quoted}",
            f"/journeys/v1/customers/{quoted}/enrollments",
            f"/journeys/v1/customers/{quoted}/story?message={quoted}",
            f"/segmenter/v1/parts/{quoted}?since=2020-01-01T00:00:00Z&name={quoted}",
            f"/mailer/v1/parts/{quoted}?since=2020-01-01T00:00:00Z",
            f"/mailer/c/{quoted}",
            f"/mailer/o/{quoted}",
            f"/mailer/u/{quoted}",
            f"/mailer/inbox?recipient={quoted}&journey={quoted}",
            f"/mailer/inbox?before={quoted}",
            f"/mailer/inbox/decisions?customer={quoted}&status={quoted}&after={quoted}",
            f"/mailer/inbox/decisions?before={quoted}&after={quoted}",
            f"/mailer/inbox/{quoted}",
            f"/mailer/inbox/{quoted}/html",
            f"/mailer/inbox/{quoted}/source",
            f"/{quoted}",
        ):
            check(await siege.http.get(path, auth=key))
        check(await siege.http.post(f"/mailer/u/{quoted}", content=text.encode()))
        check(await siege.http.post("/mailer/u/x", data={"choice": text}))
        check(await siege.http.request("GET", "/journeys/v1/journeys", headers={"Authorization": f"Bearer x{quoted}"}))
