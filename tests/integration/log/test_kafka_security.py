"""Kafka behind TLS and a password: the settings reach the broker, and it lets in nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import certificate
from kafka_for_tests import real

from deploy.dev.broker import KafkaBroker, free_ports
from shared.errors import RapportError, Unavailable
from shared.log.kafka import kafka_log, security_of
from shared.log.port import Entry
from shared.settings import Settings

_SECURE = """
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SECURE://127.0.0.1:{secure}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={certificate}
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_rapport="open sesame";
"""


class SecureBroker(KafkaBroker):
    """One that also listens behind TLS, and asks there for a password."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        super().__init__(folder)
        (self.secure,) = free_ports(1)
        self._certificate = certificate

    def _format(self, jars: Path) -> None:
        super()._format(jars)
        values = {"port": self.port, "controller": self._controller, "secure": self.secure}
        with open(self._properties, "a") as file:
            file.write(_SECURE.format(certificate=self._certificate, **values))


def settings(protocol: str, bootstrap: str, authority: Path, password: str) -> Settings:
    return Settings.read(
        kafka_bootstrap_servers=bootstrap,
        partitions=1,
        kafka_security_protocol=protocol,
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="rapport",
        kafka_sasl_password=password,
        kafka_ssl_cafile=str(authority),
    )


@pytest.mark.kafka
@pytest.mark.parametrize("listener", ["SASL_SSL"] if real() else [])  # the mock cluster has no other than the plain one
async def test_records_go_through_tls_with_a_password_and_not_without(tmp_path: Path, listener: str) -> None:
    _, authority = certificate(tmp_path)
    async with SecureBroker(tmp_path / "broker", authority) as broker:
        bootstrap = f"127.0.0.1:{broker.secure}"
        log = kafka_log(settings(listener, bootstrap, authority, "open sesame"))
        await log.ensure_streams()
        await log.start()
        await log.append("events", 0, [Entry("ann", b"{}")])
        reader = log.reader("events")
        reader.assign({0: 0})
        fetched = await reader.fetch(0, 1, 20)
        assert [record.key for record in fetched.records] == ["ann"]
        await log.close()
        stranger = kafka_log(settings(listener, bootstrap, authority, "open barley"))
        with pytest.raises(Unavailable):
            await stranger.start()
        await stranger.close()


def test_without_settings_nothing_is_encrypted_and_nobody_is_named() -> None:
    assert security_of(Settings.read()) == {"security_protocol": "PLAINTEXT"}


def test_a_password_is_asked_for_where_it_is_needed_and_refused_where_it_would_not_be_used() -> None:
    with pytest.raises(RapportError, match="set RAPPORT_KAFKA_SASL_USERNAME and RAPPORT_KAFKA_SASL_PASSWORD too"):
        Settings.read(kafka_security_protocol="SASL_SSL")
    with pytest.raises(RapportError, match="are not used with RAPPORT_KAFKA_SECURITY_PROTOCOL=SSL"):
        Settings.read(kafka_security_protocol="SSL", kafka_sasl_password="x")


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(RapportError, match="RAPPORT_KAFKA_SSL_CAFILE"):
        security_of(Settings.read(kafka_security_protocol="SSL", kafka_ssl_cafile=str(tmp_path / "none.pem")))
