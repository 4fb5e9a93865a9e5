"""Signatures of webhooks, against the example of the Standard Webhooks specification."""

from __future__ import annotations

import pytest

from services.mailer.signing import derived, headers, secret_of, written
from shared.errors import RapportError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_call_is_signed_as_the_specification_shows() -> None:
    # https://github.com/standard-webhooks/standard-webhooks/tree/main/libraries, the vector of its test suites
    sent = headers([secret_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert sent == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_a_secret_is_changed_for_another_both_sign() -> None:
    old, new = secret_of(SECRET), derived(b"installation")
    both = headers([new, old], "m1", 1, b"{}")["webhook-signature"].split()
    assert both == [headers([key], "m1", 1, b"{}")["webhook-signature"] for key in (new, old)]
    assert secret_of(written(new)) == new


@pytest.mark.parametrize(
    "text", ["", "secret", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_§"]
)
def test_what_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(RapportError, match="whsec_ and 24 to 64 bytes"):
        secret_of(text)
