"""What may stand in a field, where there is a short way to see that it may."""

from __future__ import annotations

import pytest
from email_validator import validate_email
from hypothesis import given
from hypothesis.strategies import from_regex

from shared.language.fields import PLAIN_ADDRESS, mailbox


@given(from_regex(PLAIN_ADDRESS, fullmatch=True).filter(lambda address: len(address) < 64))
def test_what_looks_like_a_plain_address_is_one(address: str) -> None:
    validate_email(address, check_deliverability=False, test_environment=True)
    assert mailbox(f"Lamp & Light <{address}>")


@pytest.mark.parametrize("address", ["hei@blåbærgrøt.no", "anna@shop.travel", "a.b.c.d@shop.co.uk"])
def test_an_address_that_is_not_plain_is_one_all_the_same(address: str) -> None:
    assert mailbox(address) == address


@pytest.mark.parametrize("address", ["a@shop", "a@shop..no", ".a@shop.no", "a@-shop.no", "a@shop.localhost"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(Exception, match="is no mail address"):
        mailbox(address)
