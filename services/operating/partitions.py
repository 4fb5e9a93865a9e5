"""`rapport partitions`: where each stands, and what to do with one that stands still."""

from __future__ import annotations

from typing import Annotated

import typer

from services.terminal import DEFAULT_DATA, Data, columns, database, out, run, say
from shared.errors import RapportError

partitions_app = typer.Typer(
    help="Where each partition stands, and what to do with one that stands still.", no_args_is_help=True
)

Service = Annotated[str, typer.Argument(help="segmenter, journeys or mailer.")]
Partition = Annotated[int, typer.Argument(help="Its number.")]


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
        table = columns("service", "partition", "offset", "road (UTC)", "failures in a row", "owner")
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
