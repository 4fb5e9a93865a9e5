"""`rapport keys`: what is shown by those who post, read, or are called."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from services.terminal import DEFAULT_DATA, Data, run, say

keys_app = typer.Typer(help="Write keys and read keys.", no_args_is_help=True)


@keys_app.command("new")
def keys_new() -> None:
    """Make a key, and the hash that goes into the file of sources or into RAPPORT_READ_KEYS."""
    from shared.security import hash_key

    key = secrets.token_urlsafe(24)
    say(f"key   {key}\nhash  {hash_key(key)}")


@keys_app.command("webhook")
def keys_webhook(data: Data = DEFAULT_DATA) -> None:
    """What webhooks are signed with: give it to those who receive them."""

    async def work() -> None:
        from services import serving
        from services.mailer.main import webhook_keys
        from services.mailer.settings import MailerSettings
        from services.mailer.signing import written

        async with serving.open_runtime(serving.visited(data), visiting=True) as runtime:
            assert runtime.installation is not None
            for key in webhook_keys(MailerSettings.read(), runtime.installation.secret):
                say(written(key))

    run(work())


@keys_app.command("hash")
def keys_hash(key: Annotated[str, typer.Argument(help="A key.")]) -> None:
    """The hash of a key."""
    from shared.security import hash_key

    say(hash_key(key))
