"""The image, the compose file and the Kubernetes base, checked without either: against their schemas and against what
the program knows."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from services.__main__ import app
from services.ingest.keyfile import Source, read_sources
from services.serving import SERVICES
from shared.security import hash_key
from shared.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
BASE = ROOT / "deploy" / "k8s" / "base"

Document = Mapping[str, Any]

KNOWN = {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"} | {
    PREFIX + name.upper()
    for settings in (Settings, *(kind for _, kind in SERVICES.values()))
    for name in settings.model_fields
}


def rendered() -> list[Document]:
    """What kustomize makes of the base; where there is no kubectl, the files that the base is made of."""
    if shutil.which("kubectl"):
        done = subprocess.run(["kubectl", "kustomize", str(BASE)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))
    base = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    return [document for name in base["resources"] for document in yaml.safe_load_all((BASE / name).read_text())]


@pytest.fixture(scope="module")
def kubernetes() -> list[Document]:
    return rendered()


@pytest.fixture(scope="module")
def compose() -> Document:
    found: Document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def secrets() -> list[Document]:
    return list(yaml.safe_load_all((BASE / "secrets.example.yaml").read_text()))


def test_every_manifest_fits_its_schema(kubernetes: list[Document]) -> None:
    for document in [*kubernetes, *secrets()]:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_each_service_has_a_deployment_a_service_and_a_disruption_budget(kubernetes: list[Document]) -> None:
    names = {f"rapport-{service}" for service in SERVICES}
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert set(of_kind(kubernetes, kind)) == names
    for name, deployment in of_kind(kubernetes, "Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        for kind, path in (("Deployment", "matchLabels"), ("PodDisruptionBudget", "matchLabels"), ("Service", "")):
            selector = of_kind(kubernetes, kind)[name]["spec"]["selector"]
            selector = selector[path] if path else selector
            assert selector.items() <= labels.items()
            assert selector["app.kubernetes.io/name"] == name
        assert deployment["spec"]["replicas"] >= 2  # or the disruption budget would keep a node from draining


def test_pods_are_as_restricted_as_kubernetes_asks(kubernetes: list[Document]) -> None:
    """The `restricted` standard: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    for _, pod in pods(kubernetes):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_probes_ask_what_the_services_answer(kubernetes: list[Document]) -> None:
    for name, pod in pods(kubernetes):
        (container,) = pod["containers"]
        if name == "rapport-migrate":
            continue
        (port,) = container["ports"]
        assert container["args"][-2:] == ["--port", str(port["containerPort"])]
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
        (face,) = of_kind(kubernetes, "Service")[name]["spec"]["ports"]
        assert face["targetPort"] == port["name"]


def test_what_containers_run_are_commands_of_the_program(kubernetes: list[Document], compose: Document) -> None:
    run = [container["args"] for _, pod in pods(kubernetes) for container in pod["containers"]]
    run += [service["command"] for service in compose["services"].values() if service["image"].startswith("rapport:")]
    commands = get_command(app).commands  # type: ignore[attr-defined]
    served = set()
    for arguments in run:
        command = commands[arguments[0]]
        if arguments[0] == "playbook":
            command = command.commands[arguments[1]]
        command.make_context(
            "rapport", list(arguments[2 if arguments[0] == "playbook" else 1 :]), resilient_parsing=True
        )
        if arguments[0] == "serve":
            served.add(arguments[1])
    assert served == set(SERVICES)


def test_settings_in_the_manifests_are_ones_that_the_program_knows(
    kubernetes: list[Document], compose: Document
) -> None:
    given = {name for config in of_kind(kubernetes, "ConfigMap").values() for name in config["data"]}
    given |= {name for secret in secrets() for name in secret["stringData"] if name != "sources.yaml"}
    given |= {item["name"] for _, pod in pods(kubernetes) for box in pod["containers"] for item in box.get("env", ())}
    for service in compose["services"].values():
        if service["image"].startswith("rapport:"):
            given |= service["environment"].keys()
    assert given <= KNOWN
    assert {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "RAPPORT_INGEST_SOURCES", "RAPPORT_MAILER_SMTP_URL"} <= given


def test_secrets_that_pods_refer_to_are_described(kubernetes: list[Document]) -> None:
    wanted = set()
    for _, pod in pods(kubernetes):
        wanted |= {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        for container in pod["containers"]:
            wanted |= {source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source}
            for source in container["envFrom"]:
                if "configMapRef" in source:
                    assert source["configMapRef"]["name"] in of_kind(kubernetes, "ConfigMap")
    assert wanted == {secret["metadata"]["name"] for secret in secrets()}


def test_ingest_is_told_nothing_of_the_database(kubernetes: list[Document]) -> None:
    """So that it cannot come to depend on it: collection goes on while the database is away."""
    (container,) = dict(pods(kubernetes))["rapport-ingest"]["containers"]
    assert {"secretRef": {"name": "rapport-database"}} not in container["envFrom"]


def test_files_of_sources_can_be_read_as_the_pods_see_them(kubernetes: list[Document]) -> None:
    ingest = dict(pods(kubernetes))["rapport-ingest"]
    (container,) = ingest["containers"]
    path = next(item["value"] for item in container["env"] if item["name"] == "RAPPORT_INGEST_SOURCES")
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "sources")
    assert path == f"{mount['mountPath']}/sources.yaml"
    example = next(secret for secret in secrets() if secret["metadata"]["name"] == "rapport-sources")
    sources = read_sources(example["stringData"]["sources.yaml"], "sources.yaml")
    assert {source.name for source in sources.values()} == {"shop"}


def test_the_keys_of_the_compose_file_are_those_it_names(compose: Document) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    sources = read_sources((ROOT / "deploy" / "compose" / "sources.yaml").read_text(), "sources.yaml")
    assert sources == {hash_key("demo-write-key"): Source("shop")}
    assert "curl -u demo-write-key:" in text
    for service in ("segmenter", "journeys", "mailer"):
        assert compose["services"][service]["environment"]["RAPPORT_READ_KEYS"] == hash_key("demo-read-key")


def test_journeys_finds_the_services_whose_parts_of_a_story_it_needs(compose: Document) -> None:
    told = compose["services"]["journeys"]["environment"]
    assert told["RAPPORT_SEGMENTER_URL"] == "http://segmenter:8000"
    assert told["RAPPORT_MAILER_URL"] == "http://mailer:8000"
    config = yaml.safe_load((ROOT / "deploy" / "k8s" / "base" / "config.yaml").read_text())["data"]
    for name in ("segmenter", "mailer"):
        faces = list(yaml.safe_load_all((ROOT / "deploy" / "k8s" / "base" / f"{name}.yaml").read_text()))
        (service,) = (face for face in faces if face["kind"] == "Service")
        assert config[f"RAPPORT_{name.upper()}_URL"] == f"http://{service['metadata']['name']}"
        (deployment,) = (face for face in faces if face["kind"] == "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        # What journeys shows them is the reader's own key.
        assert {"secretRef": {"name": "rapport-read-keys"}} in container["envFrom"]


def test_compose_starts_things_in_an_order_that_works(compose: Document) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"]
            else:
                assert services[other]["restart"] == "on-failure"
        if service["restart"] == "unless-stopped":
            assert service["healthcheck"]["test"], name
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_compose_gives_kafka_the_whole_set(compose: Document) -> None:
    """The image drops all of its defaults as soon as one variable is set."""
    given = compose["services"]["kafka"]["environment"]
    needed = """NODE_ID PROCESS_ROLES CONTROLLER_QUORUM_VOTERS CONTROLLER_LISTENER_NAMES LISTENERS ADVERTISED_LISTENERS
        LISTENER_SECURITY_PROTOCOL_MAP INTER_BROKER_LISTENER_NAME OFFSETS_TOPIC_REPLICATION_FACTOR LOG_DIRS
        TRANSACTION_STATE_LOG_REPLICATION_FACTOR TRANSACTION_STATE_LOG_MIN_ISR"""
    assert {f"KAFKA_{name}" for name in needed.split()} | {"CLUSTER_ID"} <= given.keys()
    listeners = {listener.partition(":")[0] for listener in given["KAFKA_LISTENERS"].split(",")}
    protocols = {pair.partition(":")[0] for pair in given["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")}
    assert listeners == protocols == {"PLAINTEXT", "CONTROLLER"}


def test_the_image_is_built_from_files_that_are_sent_and_runs_as_nobody_special() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    project = (ROOT / "pyproject.toml").read_text()
    for needed in ("README.md", "LICENSE", "services", "shared", "playbook"):
        assert f'"{needed}"' in project
        assert needed in kept
    assert "requirements/run.txt" in kept
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    assert dockerfile.rindex("USER") > dockerfile.rindex("FROM")


def test_the_broker_of_compose_is_the_one_that_is_tested_with(compose: Document) -> None:
    pom = (ROOT / "deploy" / "dev" / "pom.xml").read_text()
    assert compose["services"]["kafka"]["image"].split(":")[1] in pom
