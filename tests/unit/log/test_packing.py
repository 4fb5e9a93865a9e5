"""Packed rows: what goes in comes out, small or large, and anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import RapportError
from shared.log.packing import in_portions, pack, size_of, unpack
from shared.log.port import Entry, Origin

origins = (
    st.builds(Origin, st.text(), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**63 - 1)) | st.none()
)
entries = st.lists(st.builds(Entry, st.text(), st.binary(max_size=2000), origins, st.text() | st.none()), max_size=30)


@given(entries)
def test_what_was_packed_is_unpacked_the_same(given_entries: list[Entry]) -> None:
    assert unpack(pack(given_entries)) == given_entries


def test_json_is_packed_small() -> None:
    batch = [
        Entry(f"user-{n}", b'{"kind":"event","name":"Product Added","properties":{"quantity":1}}') for n in range(200)
    ]
    assert len(pack(batch)) < sum(map(len, (entry.value for entry in batch))) / 5


@pytest.mark.parametrize(
    ("packed", "complaint"),
    [
        (b"", "does not know"),
        (b"\x07abc", "does not know. Run the newer release"),
        (b"\x00abc", "cannot be read"),
        (b"\x01abc", "cannot be read"),
        (b"\x00" + b"\x91\xa1x", "cannot be read"),
        (pack([Entry("k", b"x" * 5000)])[:-10], "cannot be read"),
    ],
)
def test_bytes_that_are_not_ours_are_refused(packed: bytes, complaint: str) -> None:
    with pytest.raises(RapportError, match=complaint):
        unpack(packed)


@given(entries, st.integers(1, 5000))
def test_portions_hold_everything_in_order_and_keep_the_limit_where_they_can(
    given_entries: list[Entry], limit: int
) -> None:
    portions = list(in_portions(given_entries, limit=limit))
    assert [entry for portion, _ in portions for entry in portion] == given_entries
    for portion, size in portions:
        assert portion
        assert size == sum(map(size_of, portion))
        assert len(portion) == 1 or size <= limit
