"""A log that is away for long does not fill the disk with lines."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from io import StringIO

import pytest
from conftest_processing import PARTITIONS, House
from patience import until
from tally import Tally, said

from deploy.dev.broker import free_ports
from shared.errors import Unavailable
from shared.log.kafka import KafkaLog

pytestmark = pytest.mark.parametrize("kafka", [None], ids=["nobody"])


async def test_a_broker_that_is_away_is_told_in_a_few_lines_however_often_it_is_missed(
    house: House, logged: StringIO
) -> None:
    (port,) = free_ports(1)
    began = time.monotonic()
    home = replace(house, log=KafkaLog(f"127.0.0.1:{port}", PARTITIONS))
    worker = await home.worker(Tally())
    for n in range(20):
        with pytest.raises(Unavailable):
            await home.post(f"customer {n}", said("ann"))

    async def missed_often() -> bool:
        return worker._trouble._times > 20

    await until(missed_often)
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [line["event"] for line in lines if line.get("service") == "tally"] == ["tally waits"]
    assert {line["library"] for line in lines if "library" in line} >= {"aiokafka"}
    minutes = 1 + (time.monotonic() - began) // 60
    assert len(lines) <= 12 * minutes
    await worker.stop()
    await home.log.close()
