"""The mailer's way from a finished text to an accepted mail, beside nodemailer's pool.

Both get the same subject, HTML, text and headers, make MIME of them, and bring it to the same `smtp-sink` from one
process over as many kept connections. nodemailer is given what its documentation advises for bulk mail: a pool without
a limit of messages for a connection, filled when it says that it is idle, and no files or addresses to look up.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from bench import letters
from bench.mailer import CONNECTIONS, sink
from bench.measure import Series
from services.mailer import mime
from services.mailer.relay import Relay
from services.mailer.rendering import Rendered, Renderer
from services.mailer.smtp import SmtpTransport
from services.mailer.transport import DATA_WITHIN, Accepted
from shared.contracts.messages import MessageRequested
from shared.errors import RapportError

_RIVAL = Path(__file__).with_suffix("")
_DIFFERENT = 1_000
_MAILS = 15_000


class _Rendered(Renderer):
    """A renderer that has rendered."""

    def __init__(self) -> None:
        made = letters.renderer()
        super().__init__(made.playbook, made.links)
        now = datetime.now(UTC)
        self.requests = [letters.request(number, now) for number in range(_DIFFERENT)]
        self._made = {request.id: made.render(request) for request in self.requests}

    def render(self, request: MessageRequested) -> Rendered:
        return self._made[request.id]


def prepare(folder: Path) -> None:
    if shutil.which("npm") is None:
        raise RapportError("npm is not installed, and nodemailer comes by it. apt-get install npm")
    for name in ("package.json", "send.js"):
        shutil.copy(_RIVAL / name, folder)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True)
    rendered, now = _Rendered(), datetime.now(UTC)
    mails = []
    for request in rendered.requests:
        mail = mime.compose(rendered, request, now)
        kept = ("List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID", "Auto-Submitted", "Content-Language")
        mails.append(
            {
                "from": rendered.playbook.brand.sender,
                "to": mail.recipient,
                "replyTo": rendered.playbook.brand.reply_to,
                "subject": mail.rendered.subject,
                "messageId": mail.headers["Message-ID"],
                "headers": {name: mail.headers[name] for name in kept},
                "text": mail.rendered.text,
                "html": mail.rendered.html,
            }
        )
    (folder / "mails.json").write_text(json.dumps(mails))


def ours(folder: Path) -> float:
    with sink() as port, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_ours(port))


async def _ours(port: int) -> float:
    rendered, now = _Rendered(), datetime.now(UTC)
    transport = SmtpTransport(Relay.of(f"smtp://127.0.0.1:{port}?tls=none"), connections=CONNECTIONS)
    numbers = iter(range(_MAILS))
    loop = asyncio.get_running_loop()

    async def one_after_the_other() -> None:
        for number in numbers:
            mail = mime.compose(rendered, rendered.requests[number % _DIFFERENT], now)
            receipt = await transport.deliver(mail, loop.time() + DATA_WITHIN)
            assert isinstance(receipt, Accepted), receipt

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(CONNECTIONS)))
    took = time.perf_counter() - started
    await transport.close()
    return _MAILS / took


def nodemailer(folder: Path) -> float:
    with sink() as port:
        command = ["node", "send.js", str(port), str(CONNECTIONS), str(_MAILS), "mails.json"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return float(done.stdout)


SERIES = (
    Series(
        "rival: nodemailer",
        "mails/s",
        ours,
        nodemailer,
        "nodemailer's pool",
        ratio_goal=1.0,
        prepare=prepare,
        long=True,
    ),
)
