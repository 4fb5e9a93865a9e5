"""Reading, ownership, fencing, de-duplication, timers, dead letters and publishing: once, for every service.

In the order in which it reads best:

- `port`: what a service provides (`Processor`, `Batch`), and what it is given (`Outputs`, `Lane`)
- `worker`: a process's share of one service: heartbeats, claims, ticks, letting go
- `frame`: what the lanes of a worker have in common
- `lane`: one owned partition, from the fetch to the commit
- `share`: what one lane takes in one transaction; `agenda` has its timers, `run` its outputs
- `together`: the shares of several lanes, computed each by itself and committed as one
- `fenced`: the transaction itself; `store` has its SQL
- `outlets`: where outputs go, into the streams at once or by the outbox
- `isolation`: finds the record or timer that is at fault, and sets it aside

Beside these, `records` makes messages of records, `playbooks`, `installation`, `partitions` and `dead_letters` are what
services and commands ask of the tables, `process` tells whether a predecessor is gone, and `faults` has the points at
which tests kill a process.
"""

from pathlib import Path

from shared.database.revisions import Migrations

MIGRATIONS = Migrations("processing", Path(__file__).parent / "migrations")
