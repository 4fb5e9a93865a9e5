"""Who fetches the image of a mail or follows its links: a person who reads it, or a machine that looks at it before
anybody does. Pure.

A request says that it was made and little more, so this is a guess, and one that errs towards machines: what is taken
for a person may move a journey.

- Apple's Mail Privacy Protection fetches the images of every mail in the background, whether or not it is read, through
  proxies that say `Mozilla/5.0` and nothing else. https://github.com/ua-parser/uap-core/issues/509
- Gmail looks into some mails when they arrive, as a browser of 2015 with a second `Mozilla/5.0` at its end.
  https://github.com/mautic/mautic/pull/10245, https://www.gmass.co/blog/false-opens-in-gmail/
- The image proxies of Gmail and Yahoo fetch for somebody who looks at the mail: they hide who it is, and are people.
  https://www.scientiamobile.com/what-is-google-image-proxy/
- Scanners of companies' mail servers say what they are, or pass for a browser and are quick: nobody reads a mail within
  seconds of its delivery.
- They follow the links, too, often every one of a mail and at once: https://github.com/mautic/mautic/issues/9162,
  https://github.com/mautic/mautic/issues/8692 ("every single link within 10 seconds"),
  https://github.com/mautic/mautic/issues/16263. Some only come minutes later, as a common browser, from many addresses:
  https://github.com/mautic/mautic/issues/9798. What gives those away is that they do not stop at one link.
  https://support.arternal.com/en/articles/15216436-smart-mail-clickthroughs-triggered-by-email-security-scanners
- Some ask for the head of a page only; such requests are not reported at all.

A person who is quick is not lost: whoever follows one link, ten seconds after delivery or later, counts at once; so
does their next click where the first came sooner, since a machine's click is never taken for the same one. Two taps at
one button are one link. Addresses of networks are not looked at: whose they are changes, and offices share
theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

AT_ONCE = timedelta(seconds=10)
"""So soon after delivery no person opens a mail, or follows a link in it."""
RUSH = timedelta(seconds=1)
"""Within this no person follows two different links of one mail."""


class Opener(NamedTuple):
    """`reason` is why it is taken for a machine: `apple_privacy`, `gmail_prefetch`, `scanner`, `at_once`, or, for
    clicks, `several_links`; empty for a person. `has_it` says whether the mail must be in the mailbox by then: a
    scanner may look before the mail server has said yes."""

    machine: bool
    reason: str
    has_it: bool


_PERSON = Opener(False, "", True)
_APPLE = Opener(True, "apple_privacy", True)
_GMAIL = Opener(True, "gmail_prefetch", True)
_SCANNER = Opener(True, "scanner", False)
_QUICK = Opener(True, "at_once", False)
_RUSHED = Opener(True, "several_links", False)

_APPLE_AGENT = "Mozilla/5.0"
_GMAIL_AGENT = re.compile(r"Edge/12\.246 Mozilla/5\.0$")
_SCANNERS = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|scan|preview|prefetch|monitor|validator|headless|phantomjs|selenium|"
    r"barracuda|mimecast|proofpoint|forcepoint|ironport|symantec|mcafee|sophos|trend ?micro|fireeye|fortinet|"
    r"safelinks|ciscosecureemail|\btmes\b|"
    r"office existence discovery|microsoft-?scanner|hubspot connect|amazon cloudfront|facebookexternalhit|"
    r"^(?:curl|wget|python|java|okhttp|go-http-client|axios|node|ruby|perl|php|libwww|lua|guzzle|apache-http|ahc)\b",
    re.I,
)
"""What programs say of themselves that no person reads mail with."""


def opened_by(agent: str, delivered_at: datetime | None, now: datetime) -> Opener:
    """`agent` is the header User-Agent, `delivered_at` when the mail server took the mail; None where it has not yet
    said so, or nobody knows."""
    agent = agent.strip()
    if agent == _APPLE_AGENT:
        return _APPLE
    if _GMAIL_AGENT.search(agent):
        return _GMAIL
    if not agent or _SCANNERS.search(agent):
        return _SCANNER
    if delivered_at is None or now - delivered_at < AT_ONCE:
        return _QUICK
    return _PERSON


def clicked_by(agent: str, delivered_at: datetime | None, now: datetime, others: Iterable[datetime]) -> Opener:
    """As `opened_by`, of whoever follows a link. `others` are the times at which other links of the same mail were
    followed, so far as they are known."""
    agent = agent.strip()
    if not agent or agent == _APPLE_AGENT or _GMAIL_AGENT.search(agent) or _SCANNERS.search(agent):
        return _SCANNER
    if delivered_at is None or now - delivered_at < AT_ONCE:
        return _QUICK
    return _RUSHED if any(abs(now - other) < RUSH for other in others) else _PERSON
