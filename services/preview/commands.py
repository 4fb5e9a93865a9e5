"""`rapport playbook preview`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.terminal import DEFAULT_DATA, READ_KEY, Form, fail, one_of, prove_writable, say
from shared.errors import RapportError

if TYPE_CHECKING:
    from services.mailer.transport import Mail
    from shared.contracts.messages import MessageRequested
    from shared.language.playbook import Playbook

_SECONDS = 30.0


def preview_in(app: typer.Typer) -> None:
    """Put the command under `rapport playbook`."""
    app.command("preview")(playbook_preview)


def playbook_preview(
    message: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="The playbook's folder.")] = Path(),
    data: Annotated[
        Path | None, typer.Option(help="A YAML file with traits, trigger, with and so on.", show_default=False)
    ] = None,
    customer: Annotated[
        str | None, typer.Option(help="The key of a customer of a running system.", show_default=False)
    ] = None,
    url: Annotated[str, typer.Option(help="The running system.")] = "http://127.0.0.1:8080/segmenter",
    read_key: Annotated[
        str | None,
        typer.Option(envvar="RAPPORT_READ_KEY", help="Its read key; if not given, that of `rapport up` here."),
    ] = None,
    locale: Annotated[str | None, typer.Option(help="The customer's language, such as nb-NO.")] = None,
    form: Form = "text",
    html: Annotated[Path | None, typer.Option(help="Write the HTML into this file.", show_default=False)] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the HTML in a browser.")] = False,
    send_to: Annotated[
        str | None,
        typer.Option(help="Send it to this address, by the server of RAPPORT_MAILER_SMTP_URL.", show_default=False),
    ] = None,
) -> None:
    """Subject, text and HTML of a message, for a sample or a real customer."""
    one_of(form, "text", "json")
    try:
        request, playbook, origin = _request(folder, message, data, customer, url, read_key)
        if locale is not None:
            import msgspec

            request = msgspec.structs.replace(request, locale=locale)
        _show(playbook, request, origin, form, html, show)
        if send_to is not None:
            _send(playbook, request, send_to)
    except RapportError as error:
        fail(str(error))


def _request(
    folder: Path, message: str, data: Path | None, customer: str | None, url: str, read_key: str | None
) -> tuple[MessageRequested, Playbook, str]:
    from services.preview.sample import of_customer, sample, with_data
    from shared.language import load_with_tests, read_folder

    loaded = load_with_tests(read_folder(folder))
    found = sample(loaded, message)
    request, origin = found.request, found.origin
    if customer is not None:
        request, trigger = of_customer(request, loaded.playbook, _page(url, customer, read_key))
        origin = f"customer {customer}; {trigger}"
    if data is not None:
        request, origin = with_data(request, _data(data)), f"{data}, over {origin}"
    return request, loaded.playbook, origin


def _data(file: Path) -> Mapping[str, Any]:
    import json

    from services.trials.comparing import as_json
    from shared.language.source import MappingNode, parse, plain

    try:
        content = file.read_bytes()
    except OSError as error:
        raise RapportError(f"{file}: {error.strerror}. Give a file that can be read.") from None
    problems: list[Any] = []
    document = parse(str(file), content, problems.append)
    if document is None or problems:
        raise RapportError("\n".join(map(str, problems)))
    if not isinstance(document.root, MappingNode):
        raise RapportError(f"{file}:1:1: this file holds no fields. Begin with traits:.")
    found: Mapping[str, Any] = json.loads(as_json(plain(document.root)))
    return found


def _page(url: str, customer: str, read_key: str | None) -> Mapping[str, Any]:
    """What the segmenter's API says of a customer."""
    import json
    from contextlib import suppress
    from urllib.error import HTTPError, URLError
    from urllib.parse import quote
    from urllib.request import Request, urlopen

    if read_key is None:
        kept = DEFAULT_DATA / READ_KEY
        if not kept.exists():
            raise RapportError("a read key is needed. Set RAPPORT_READ_KEY, or give --read-key.")
        read_key = kept.read_text().strip()
    asked = f"{url.rstrip('/')}/v1/customers/{quote(customer, safe='')}?limit=200"
    try:
        request = Request(asked, headers={"Authorization": f"Bearer {read_key}"})
        with urlopen(request, timeout=_SECONDS) as answer:
            found: Mapping[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        said = error.read()[:500].decode(errors="replace")
        with suppress(ValueError, TypeError, KeyError):
            said = json.loads(said)["message"]
        raise RapportError(f"{asked} answered {error.code}: {said}") from None
    except (URLError, ValueError, OSError) as error:
        why = error.reason if isinstance(error, URLError) else error
        why = why.strerror if isinstance(why, OSError) and why.strerror else why
        raise RapportError(
            f"{url} does not answer: {why}. Start Rapport there (rapport up), or name the segmenter of a running "
            "system: --url. Without --customer a sample is shown."
        ) from None


def _show(playbook: Playbook, request: MessageRequested, origin: str, form: str, html: Path | None, show: bool) -> None:
    import msgspec

    from services.preview.reading import legible

    texts = {"SMS": _other(playbook, request, "sms"), "Push": _other(playbook, request, "push")}
    others = {name: text for name, text in texts.items() if text is not None}
    mailed = not others or "email" in _channels(playbook, request.message)
    if not mailed and (html is not None or show):
        raise RapportError(f"messages/{request.message} is no mail, so it has no HTML. Leave out --html and --open.")
    page = ""
    if mailed:
        mail = _mail(playbook, msgspec.structs.replace(request, channel="email"))
        subject, page, text = legible(mail)
    if form == "json":
        import json

        written = {"subject": subject, "text": text, "html": page} if mailed else {}
        shorts = {name.lower(): text for name, text in others.items()}
        typer.echo(json.dumps({**written, **shorts}, indent=2, ensure_ascii=False))
    else:
        if mailed:
            say(f"Subject: {subject}")
            say(f"From:    {playbook.brand.sender}")
        say(f"Topic:   {request.topic}")
        if mailed:
            say(f"In:      {mail.rendered.locale}")
        say(f"With:    {origin}")
        say("")
        if mailed:
            say(text)
        for name, short in others.items():
            say(f"{name}:")
            say(short)
            say("")
    if html is None and show:
        import tempfile

        html = Path(tempfile.mkdtemp(prefix="rapport-preview-")) / f"{request.message}.html"
    if html is not None:
        prove_writable(html)
        html.write_text(page, encoding="utf-8")
        if form == "text":
            say(f"HTML:    {html}")
    if show and html is not None:
        typer.launch(html.absolute().as_uri())


def _channels(playbook: Playbook, message: str) -> set[str]:
    """Those for which a message has words."""
    files = {file for of_locale in playbook.messages[message].files.values() for file in of_locale}
    named = {"email": "subject.txt", "sms": "sms.txt", "push": "push.title"}
    return {channel for channel, file in named.items() if file in files}


def _other(playbook: Playbook, request: MessageRequested, channel: str) -> str | None:
    """The words of a message on another channel than mail; None where it has none."""
    if channel not in _channels(playbook, request.message):
        return None
    import msgspec

    return _mail(playbook, msgspec.structs.replace(request, channel=channel)).rendered.text


def _mail(playbook: Playbook, request: MessageRequested) -> Mail:
    from services.mailer.composing import Composer
    from services.mailer.links import Links
    from services.preview.reading import PUBLIC_URL

    return Composer(Links(b"preview", PUBLIC_URL))(playbook, request, request.due)


def _send(playbook: Playbook, request: MessageRequested, address: str) -> None:
    """To one address, as it stands, by the server that the mailer is set to."""
    import asyncio
    from datetime import UTC, datetime
    from uuid import uuid4

    import msgspec

    from services.mailer.composing import Composer
    from services.mailer.consent import normalise
    from services.mailer.links import Links
    from services.mailer.relay import Relay
    from services.mailer.settings import INBOX, MailerSettings
    from services.mailer.smtp import SmtpTransport
    from services.mailer.transport import Accepted, Receipt

    settings = MailerSettings.read()
    if settings.mailer_smtp_url == INBOX:
        raise RapportError("no mail server is set. Set RAPPORT_MAILER_SMTP_URL=smtp://user:password@host:587.")
    if normalise(address) is None:
        raise RapportError(f"{address} is no mail address. Write name@example.com.")
    if "email" not in _channels(playbook, request.message):
        raise RapportError(f"messages/{request.message} is no mail. Leave out --send-to.")
    # An id of its own: who sends a preview twice wants to see two.
    asked = msgspec.structs.replace(request, id=str(uuid4()), address=address, channel="email")
    compose = Composer(Links(b"preview", settings.mailer_public_url))
    mail = compose(playbook, asked, datetime.now(UTC))

    async def deliver() -> Receipt:
        transport = SmtpTransport(Relay.of(settings.mailer_smtp_url), connections=1)
        await transport.start()
        try:
            return await transport.deliver(mail, asyncio.get_running_loop().time() + _SECONDS)
        finally:
            await transport.close()

    receipt = asyncio.run(deliver())
    if not isinstance(receipt, Accepted):
        said = getattr(receipt, "reply", "") or getattr(receipt, "reason", "")
        raise RapportError(f"{Relay.of(settings.mailer_smtp_url).host} did not take it: {said}. Look at its log.")
    say(f"Sent to {address}: {receipt.reply}")
