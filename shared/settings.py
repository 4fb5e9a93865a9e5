"""Settings come from the environment. A name with our prefix that nobody knows is an error, since a typo is silent."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contracts.streams import DEFAULT_PARTITIONS
from shared.errors import RapportError

PREFIX = "RAPPORT_"


class Settings(BaseSettings):
    """What every service reads. A service's own settings derive from this class."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, populate_by_name=True, extra="ignore", frozen=True)

    database_url: str | None = Field(None, validation_alias=AliasChoices("database_url", "DATABASE_URL"))
    """`postgresql://user:password@host:port/name`."""
    kafka_bootstrap_servers: str | None = Field(
        None, validation_alias=AliasChoices("kafka_bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS")
    )
    """`host:port,…`; without it the streams are kept in PostgreSQL."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to speak to the brokers, as Kafka's own clients name it."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: str | None = Field(None, repr=False)
    kafka_ssl_cafile: str | None = None
    """The file of the authorities that the brokers' certificates are checked against; without it, the system's."""
    kafka_ssl_certfile: str | None = None
    kafka_ssl_keyfile: str | None = None
    """Our own certificate and its key (PEM), where the brokers ask for one."""
    kafka_topic_prefix: str = Field("rapport.", pattern=r"[A-Za-z0-9._-]{0,100}")
    """What the names of the topics begin with, so that one cluster may hold several installations."""
    kafka_replication_factor: int = Field(1, ge=1, le=9)
    """How many brokers keep each record; for `rapport migrate`, which makes the topics."""
    partitions: int = Field(DEFAULT_PARTITIONS, ge=1, le=1024)
    """How many partitions every stream has; fixed at installation."""
    database_connections: int = Field(8, ge=2, le=100)
    """The most connections of one process to PostgreSQL."""
    clock_speed: float = Field(1.0, gt=0, le=100_000)
    """How many seconds pass for each second of the machine's; for demonstrations."""
    heartbeat_seconds: float = Field(1.0, gt=0, le=60)
    """How often a worker says that it lives."""
    expiry_seconds: float = Field(10.0, gt=0, le=600)
    """How long after its last heartbeat a worker's partitions may be taken over."""
    batch_records: int = Field(2000, ge=1, le=20_000)
    """How many records one fenced transaction may hold."""
    partitions_in_flight: int = Field(4, ge=1, le=64)
    """How many transactions of this process may be between load and COMMIT at one time."""
    gather_seconds: float = Field(0.002, ge=0, le=1)
    """From the begin of one transaction that partitions share to that of the next, where there is one to be made. More
    of it makes fewer and larger transactions, which cost less and are waited for longer."""
    story_days: int = Field(90, ge=1, le=3650)
    """For how many days it is kept what was decided about each customer, and why."""
    read_keys: str = ""
    """The SHA-256 hashes of the keys that may read customers and journeys, separated by commas; none: nobody may."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto` is `console` where standard error is a terminal, else `json`."""
    fault: str = ""
    """A named point at which the process kills itself; for tests (see `shared.processing.faults`)."""
    fault_proof: str = ""

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        needed = (self.kafka_sasl_username, self.kafka_sasl_password)
        if self.kafka_security_protocol.startswith("SASL_") and not all(needed):
            raise ValueError(
                f"RAPPORT_KAFKA_SECURITY_PROTOCOL is {self.kafka_security_protocol}: set RAPPORT_KAFKA_SASL_USERNAME "
                f"and RAPPORT_KAFKA_SASL_PASSWORD too."
            )
        if self.kafka_security_protocol in ("PLAINTEXT", "SSL") and any(needed):
            raise ValueError(
                f"RAPPORT_KAFKA_SASL_USERNAME and _PASSWORD are not used with RAPPORT_KAFKA_SECURITY_PROTOCOL="
                f"{self.kafka_security_protocol}. Set it to SASL_SSL, or remove them."
            )
        return self

    @classmethod
    def read(cls, **values: object) -> Self:
        """From the environment, with `values` before it. Raises RapportError that names the variable."""
        try:
            return cls(**values)  # type: ignore[arg-type]
        except ValidationError as error:
            lines = [
                (f"{_variable(str(e['loc'][0]))}: " if e["loc"] else "") + e["msg"].removeprefix("Value error, ")
                for e in error.errors()
            ]
            raise RapportError("settings: " + "; ".join(lines)) from None


def refuse_unknown(known: Iterable[type[Settings]], environment: Iterable[str] | None = None) -> None:
    """Raise RapportError where a variable with our prefix belongs to no setting of `known`."""
    names = {PREFIX + name.upper() for settings in known for name in settings.model_fields}
    for variable in sorted(os.environ if environment is None else environment):
        if variable.startswith(PREFIX) and variable not in names:
            near = difflib.get_close_matches(variable, names, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise RapportError(f"settings: {variable} is not known.{hint} Remove it or correct its name.")


def _variable(field: str) -> str:
    return field if field.isupper() else PREFIX + field.upper()
