"""How answers leave the process."""

from __future__ import annotations

import asyncio
from typing import cast

from services.serving import OnePiece


class Wire:
    """A transport that notes each call to the kernel."""

    def __init__(self) -> None:
        self.said: list[bytes | str] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.said.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.said.append("closed")


def of(wire: Wire) -> OnePiece:
    return OnePiece(cast(asyncio.Transport, wire))


async def test_head_and_body_go_out_together() -> None:
    wire = Wire()
    answer = of(wire)
    answer.write(b"head ")
    answer.write(b"body")
    await asyncio.sleep(0)
    answer.write(b"another")
    await asyncio.sleep(0)
    assert wire.said == [b"head body", b"another"]


async def test_what_is_written_before_the_end_goes_out_before_it() -> None:
    wire = Wire()
    answer = of(wire)
    answer.write(b"head ")
    answer.write(b"body")
    answer.close()
    await asyncio.sleep(0)
    assert wire.said == [b"head body", "closed"]


async def test_what_is_long_does_not_pile_up() -> None:
    wire = Wire()
    answer = of(wire)
    answer.write(b"head ")
    answer.write(b"." * 100_000)
    assert [len(said) for said in wire.said] == [100_005]
    await asyncio.sleep(0)
    assert len(wire.said) == 1


async def test_nothing_is_written_to_whoever_has_gone() -> None:
    wire = Wire()
    answer = of(wire)
    answer.write(b"head")
    wire.closing = True
    await asyncio.sleep(0)
    assert wire.said == []
