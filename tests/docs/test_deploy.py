"""The deployment files: valid where a schema can be had, and what they promise about safety."""

import re
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "k8s").glob("*.yaml"))
OWN_SCHEMA = {"Milvus"}  # a resource of Milvus's operator, whose schema is with the operator
VERSIONS = ("1.29", "1.33")


DOCUMENTS = [
    pytest.param(told, id=f"{path.name}:{told['kind']}/{told['metadata']['name']}")
    for path in MANIFESTS
    for told in yaml.safe_load_all(path.read_text("utf-8"))
]
PODS = [
    pytest.param(one.values[0]["spec"]["template"], id=one.id)
    for one in DOCUMENTS
    if one.values[0]["kind"] == "Deployment"
]


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))


def test_there_are_all_that_were_promised():
    kinds = [(one.values[0]["kind"], one.values[0]["metadata"]["name"]) for one in DOCUMENTS]
    assert {("Namespace", "soutu"), ("Milvus", "soutu"), ("Deployment", "api"), ("Service", "api"),
            ("Deployment", "ray-head"), ("Deployment", "ray-worker")} <= {*kinds}  # fmt: skip
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("told", DOCUMENTS)
def test_manifests_fit_the_schema_of_kubernetes(told, version):
    validate = pytest.importorskip("kubernetes_validate")
    if told["kind"] in OWN_SCHEMA:
        pytest.skip("its schema comes with Milvus's operator")
    validate.validate(told, version, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_use_no_anchors(path):
    """Which not every tool that reads manifests resolves."""
    text = re.sub(r"#.*", "", path.read_text("utf-8"))
    assert not re.search(r"(^|[\s:\[{])([&*][a-z]|<<:)", text)


@pytest.mark.parametrize("told", DOCUMENTS)
def test_all_live_in_one_namespace(told):
    assert told["kind"] == "Namespace" or told["metadata"]["namespace"] == "soutu"


@pytest.mark.parametrize("pod", PODS)
def test_pods_may_do_no_more_than_they_need(pod):
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"] is True
        assert locked["allowPrivilegeEscalation"] is False
        assert locked["capabilities"] == {"drop": ["ALL"]}
        asked = container["resources"]
        assert {"cpu", "memory"} <= {*asked["requests"]} & {*asked["limits"]}
        assert "readinessProbe" in container
        assert not container["image"].endswith(":latest")
        assert ":" in container["image"]
        names = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_what_refers_to_each_other_is_there():
    by_kind = {}
    for one in DOCUMENTS:
        (told,) = one.values
        by_kind.setdefault(told["kind"], {})[told["metadata"]["name"]] = told
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in by_kind["Deployment"].values()]
    for service in (*by_kind["Service"].values(),):
        assert service["spec"]["selector"] in labels
    for deployment in by_kind["Deployment"].values():
        spec = deployment["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        for volume in spec["template"]["spec"]["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in by_kind["PersistentVolumeClaim"]


def test_the_probes_ask_for_health():
    (api,) = (pod.values[0] for pod in PODS if pod.values[0]["metadata"]["labels"]["app"] == "api")
    (container,) = api["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/api/v1/health"
    assert "/api/v1/health" in str(compose()["services"]["api"]["healthcheck"]["test"])


def test_compose_services_are_bounded_watched_and_pinned():
    told = compose()
    services = told["services"]
    assert {"etcd", "minio", "milvus", "api", "ray-head", "ray-worker"} == {*services}
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} == {*limits}, name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert re.search(r":[\w.${}:-]+$", service["image"]), name
        assert "latest" not in service["image"]
        assert {*service.get("depends_on", {})} <= {*services}
        for needed in service.get("depends_on", {}).values():
            assert needed == {"condition": "service_healthy"}
        for mount in service.get("volumes", ()):
            assert mount.split(":")[0] in told["volumes"], mount
        assert {*service.get("secrets", ())} <= {*told["secrets"]}
    for name in ("api", "ray-head", "ray-worker"):
        assert services[name]["read_only"] is True
        assert services[name]["user"] == "10001"
        assert services[name]["cap_drop"] == ["ALL"]
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:8765:8765"], "nothing is open to the network by itself"


def test_no_secret_is_in_the_files():
    for path in (DEPLOY / "compose.yaml", *MANIFESTS):
        for line in path.read_text("utf-8").splitlines():
            found = re.search(r"(PASSWORD|TOKEN|SECRET_ACCESS_KEY): (.*)", line)
            assert not found or found[2].startswith("${"), line


def test_ray_commands_are_understood():
    start = pytest.importorskip("ray.scripts.scripts").start
    commands = [compose()["services"][name]["command"] for name in ("ray-head", "ray-worker")]
    commands += [p.values[0]["spec"]["containers"][0]["args"] for p in PODS if "ray" in p.id]
    assert len(commands) == 4
    for command in commands:
        assert command[:2] == ["ray", "start"]
        start.make_context("start", [str(word) for word in command[2:]])


def test_the_image_runs_as_nobody_and_has_what_it_needs():
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    users = re.findall(r"^USER (\S+)$", text, re.M)
    assert users == ["10001"]
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", text, re.M)
    project = (DEPLOY.parent / "pyproject.toml").read_text("utf-8")
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.M), extra
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["python:3.12-slim"] * 2
