"""The `rapport` command."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from services.backtest import commands as backtest
from services.checking import check_in
from services.preview import commands as preview
from services.publishing import commands as publishing
from services.publishing.coupons import coupons_app
from services.publishing.journeys import journeys_app
from services.publishing.tasks import tasks_app
from services.terminal import DEFAULT_DATA, Data, Folder, columns, database, fail, one_of, out, run, say
from services.trials import commands as trials
from services.why import why_in
from shared.errors import RapportError
from shared.memory import collect_seldom

app = typer.Typer(
    name="rapport",
    help="Relationship marketing: customer events in, the right mail out, once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
playbook_app = typer.Typer(
    help="The folder that marketers edit: make one, check it, put it in force.", no_args_is_help=True
)
letters_app = typer.Typer(help="Records that could not be processed: list, read, try again.", no_args_is_help=True)
partitions_app = typer.Typer(
    help="Where each partition stands, and what to do with one that stands still.", no_args_is_help=True
)
keys_app = typer.Typer(help="Write keys and read keys.", no_args_is_help=True)
check_in(playbook_app)
publishing.publish_in(playbook_app)
backtest.simulate_in(app)
trials.test_in(playbook_app)
preview.preview_in(playbook_app)
why_in(app)
app.add_typer(playbook_app, name="playbook")
app.add_typer(journeys_app, name="journeys")
app.add_typer(coupons_app, name="coupons")
app.add_typer(tasks_app, name="tasks")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(partitions_app, name="partitions")
app.add_typer(keys_app, name="keys")

Service = Annotated[str, typer.Argument(help="segmenter, journeys or mailer.")]
Partition = Annotated[int, typer.Argument(help="Its number.")]


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="Where everything is kept.")] = DEFAULT_DATA,
    port: Annotated[int, typer.Option(help="One port for all services.")] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    playbook: Annotated[
        Path | None,
        typer.Option(
            help="The playbook's folder, watched; if not given, what is in force stays, at first the shipped one."
        ),
    ] = None,
    smtp: Annotated[
        str, typer.Option(help="smtp://user:password@host:587, smtps://…, or inbox:// to keep mails here.")
    ] = "inbox://",
    write_key: Annotated[
        str | None, typer.Option(help="What shops post with; made and kept in --data if not given.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="How the outer world reaches this port; links in mails begin with it.")
    ] = None,
) -> None:
    """Run everything in one process, with a PostgreSQL of its own."""
    from services import embedded
    from services.mailer.settings import INBOX

    options = embedded.Options(
        data=data,
        playbook=playbook,
        host=host,
        port=port,
        smtp=smtp,
        write_key=write_key,
        public_url=public_url,
    )

    async def work() -> None:
        from services.serving import stop_requested

        async with embedded.running(options) as running:
            say(f"Rapport is up at {running.address}")
            say(f"  post events to  {running.address}/v1/batch   write key {running.write_key}")
            say(f"  customers       {running.address}/segmenter/v1/customers/KEY   read key {running.read_key}")
            if smtp == INBOX:
                say(f"  read the mails  {running.address}/mailer/inbox")
            say(f"  API reference   {running.address}/docs")
            await stop_requested(running.server)

    run(work())


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help="ingest, segmenter, journeys or mailer.")],
    port: Annotated[int, typer.Option(help="The port of its HTTP face.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",
) -> None:
    """Run one service on the servers that DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS name."""
    from services import serving

    if service not in serving.SERVICES:
        raise typer.BadParameter(f"there is no service {service!r}. There are {', '.join(serving.SERVICES)}.")
    run(serving.serve(service, host, port))


@app.command()
def migrate() -> None:
    """Bring the database's tables, and Kafka's topics, to what this release needs."""

    async def work() -> None:
        from services import serving
        from shared.database.engine import Database
        from shared.database.migrations import migrate as bring_up
        from shared.log.kafka import kafka_log

        settings = serving.read_settings()
        if settings.database_url is None:
            raise RapportError(serving.NO_DATABASE)
        database = Database(settings.database_url)
        try:
            for line in await bring_up(database, serving.MIGRATIONS):
                say(line)
        finally:
            await database.close()
        if settings.kafka_bootstrap_servers:
            for topic in await kafka_log(settings).ensure_streams(settings.kafka_replication_factor):
                say(f"kafka: topic {topic}")
        say("up to date")

    run(work())


@app.command()
def demo(
    seconds: Annotated[
        float | None,
        typer.Option("--for", help="End by itself after so long, such as 40s.", parser=lambda text: _seconds(text)),
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Print no live picture.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write what happened as JSON.")] = None,
    port: Annotated[int, typer.Option(help="The port to read the mails on; 0 takes any.")] = 8080,
    data: Annotated[
        Path | None, typer.Option(help="Where everything is kept; a temporary folder if not given.")
    ] = None,
) -> None:
    """A fictional shop, a fast clock, and the mails that its customers get."""
    from services.demo import run_demo

    run(run_demo(seconds=seconds, headless=headless, report=report, port=port, data=data))


@playbook_app.command("init")
def playbook_init(folder: Folder) -> None:
    """Copy the shipped playbook into a new folder, with schemas for the editor."""
    from shared.language import SHIPPED, read_folder, write_schemas

    if folder.exists() and any(folder.iterdir()):
        fail(f"{folder} is not empty. Choose a new folder.")
    for name, content in read_folder(SHIPPED).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_schemas(folder)
    say(f"{folder} is ready. Edit it, then: rapport playbook check {folder}")


@playbook_app.command("schema")
def playbook_schema(folder: Folder) -> None:
    """Write the JSON Schemas for editors into FOLDER/.schema."""
    from shared.language import write_schemas

    write_schemas(folder)
    say(f"written to {folder / '.schema'}")


@playbook_app.command("show")
def playbook_show(
    journey: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="The playbook's folder.")] = Path(),
    form: Annotated[str, typer.Option("--format", help="text, mermaid or svg.")] = "text",
    counts: Annotated[bool, typer.Option("--counts", help="With how many customers are where now.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Draw a journey: rapport playbook show abandoned-cart my-playbook --format svg > cart.svg"""
    from shared.language import load, read_folder
    from shared.language.flowchart import as_mermaid, as_text, flow_of
    from shared.language.flowchart_svg import as_svg
    from shared.language.problems import did_you_mean

    one_of(form, "text", "mermaid", "svg")

    async def work() -> None:
        journeys = load(read_folder(folder)).journeys
        if journey not in journeys:
            remedy = did_you_mean(journey, journeys, f"There are {', '.join(journeys) or 'none'}.")
            raise RapportError(f'there is no journey "{journey}" in {folder}. {remedy}')
        inside: dict[str, int] = {}
        if counts:
            from services.journeys.store import inside_by_step

            async with database(data) as connection:
                inside = await inside_by_step(connection, journey)
        flow, title = flow_of(journeys[journey]), journeys[journey].title
        drawn = {
            "text": lambda: as_text(flow, inside),
            "mermaid": lambda: as_mermaid(flow, inside),
            "svg": lambda: as_svg(flow, title, inside),
        }
        typer.echo(drawn[form]())

    run(work())


@letters_app.command("list")
def letters_list(
    service: Annotated[str | None, typer.Option(help="Only those of one service.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 50,
    data: Data = DEFAULT_DATA,
) -> None:
    """The newest dead letters."""

    async def work() -> None:
        from shared.processing import dead_letters

        async with database(data) as connection:
            letters = await dead_letters.newest(connection, service, limit)
        table = columns("id", "filed", "service", "key", "code", "reason")
        for letter in letters:
            filed = letter.filed_at.strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(str(letter.id), filed, letter.service, letter.key, letter.code, letter.message)
        out.print(table if letters else "there are none")

    run(work())


@letters_app.command("show")
def letters_show(
    letter: Annotated[int, typer.Argument(help="Its id.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """One dead letter with its bytes."""

    async def work() -> None:
        from shared.processing import dead_letters

        async with database(data) as connection:
            found = await dead_letters.read(connection, letter)
        for name, value in found._asdict().items():
            shown = value.decode(errors="replace") if isinstance(value, bytes) else value
            say(f"{name + ':':<14}{shown}")

    run(work())


@letters_app.command("retry")
def letters_retry(
    letters: Annotated[list[int] | None, typer.Argument(help="Their ids.", show_default=False)] = None,
    service: Annotated[str | None, typer.Option(help="Instead: all of this service,")] = None,
    code: Annotated[str | None, typer.Option(help="or of this code, or of both.")] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Have the owners of their partitions process them again, in the order in which they were set aside."""
    if bool(letters) == bool(service or code):
        raise typer.BadParameter("give ids, or --service or --code.")

    async def work() -> None:
        from shared.processing import dead_letters

        async with database(data) as connection:
            if letters:
                asked = await dead_letters.ask_retry(connection, letters)
            else:
                asked = await dead_letters.ask_retry_of_all(connection, service, code)
        say(f"{asked} will be tried again within a second or two; see `rapport dead-letters list`")

    run(work())


@partitions_app.command("list")
def partitions_list(
    service: Annotated[str | None, typer.Option(help="Only those of one service.")] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """How far each partition has come, and who owns it."""

    async def work() -> None:
        from shared.processing import partitions

        async with database(data) as connection:
            found = await partitions.standings(connection, service)
        table = columns("service", "partition", "offset", "road", "failures in a row", "owner")
        for one in found:
            road = one.as_of.strftime("%Y-%m-%d %H:%M:%S") if one.as_of else ""
            failures = str(one.failures or "")
            table.add_row(one.service, str(one.partition), str(one.offset), road, failures, one.host or "nobody")
        out.print(table)

    run(work())


@partitions_app.command("resume")
def partitions_resume(service: Service, partition: Partition, data: Data = DEFAULT_DATA) -> None:
    """Begin anew with a partition that stands still, where it stands, once its cause is mended."""

    async def work() -> None:
        from shared.processing import partitions

        async with database(data) as connection:
            await partitions.resume(connection, service, partition)
        say(f"{service}[{partition}] goes on within a few seconds")

    run(work())


@partitions_app.command("seek")
def partitions_seek(
    service: Service,
    partition: Partition,
    offset: Annotated[str, typer.Argument(help="An offset, or earliest, or end.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Have a partition go on from another offset. What it skips is lost, what it goes back over is processed again."""

    async def work() -> None:
        from services import serving
        from shared.contracts.streams import READ_BY
        from shared.processing import partitions

        if service not in READ_BY:
            raise RapportError(f"{service} reads no stream. There are {', '.join(READ_BY)}.")
        async with serving.open_runtime(serving.visited(data), visiting=True) as runtime:
            assert runtime.database is not None
            if not 0 <= partition < runtime.log.partitions:
                raise RapportError(f"there is no partition {partition} among {runtime.log.partitions}.")
            earliest, end = await runtime.log.range_of(READ_BY[service], partition)
            names = {"earliest": earliest, "end": end}
            if offset not in names and not offset.isdecimal():
                raise RapportError(f"{offset!r} is no offset. Give a number, earliest or end.")
            target = names.get(offset) if offset in names else int(offset)
            if target is None or not earliest <= target <= end:
                raise RapportError(f"the log has {READ_BY[service]}[{partition}] from {earliest} to {end} only.")
            async with runtime.database.connect() as connection:
                await partitions.seek(connection, service, partition, target)
        say(f"{service}[{partition}] goes on from {target} within a few seconds")

    run(work())


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


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no duration. Write 40s or 2m.") from None


def main() -> None:
    """The console script's entry."""
    collect_seldom()
    # To look for plugins, of which we have none, pydantic reads what every installed package says of itself.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    app()


if __name__ == "__main__":
    main()
