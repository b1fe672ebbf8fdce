"""deploy/kubernetes: made by real kustomize and helm, checked by Kubernetes' own schemas, and run by a real runtime."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tracarbon
import trustme
from packaging.requirements import Requirement
from tracarbon.cli._run import _LEAVE_SECONDS

from tests.k8s import deploy_pod
from tests.k8s.cgroup_tree import CgroupTree, container_id, uid
from tests.k8s.deploy_pod import PodError, pods_available, run_pod, said_by
from tests.k8s.deploy_tools import (
    CHART,
    COMPONENTS,
    DEPLOY,
    Thing,
    helm,
    kustomized,
    parsed,
    rendered,
    unavailable,
    with_components,
)
from tests.pipelines.support import environment, run, wait_until
from tests.support.powercap_tree import PowercapTree, one_socket

kubernetes_validate = pytest.importorskip("kubernetes_validate")
DockerfileParser: Any = pytest.importorskip("dockerfile_parse").DockerfileParser

pytestmark = [pytest.mark.once, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]
needs_pods = pytest.mark.skipif(pods_available() is not None, reason=str(pods_available()))

ROOT = Path(__file__).parents[2]
# All that tracarbon-k8s asks of an API server: lists, of all namespaces or of some, found by node.
READ_BY_US = {("", "pods", "list")}
READ_BY_METRICS_API = {("metrics.k8s.io", "pods", "list")}
SEEN_OF_THE_HOST = {
    "/sys/class": "Directory",
    "/sys/devices": "Directory",
    "/sys/fs/cgroup": "Directory",
    "/proc/stat": "File",
    "/proc/meminfo": "File",
    "/proc/cpuinfo": "File",
}
SEEN_FOR_GPUS = {"/var/lib/kubelet/pod-resources": "Directory"}
# Kubernetes says the first one, from which on the fields that we use are known, and the newest one.
VERSIONS = ("1.30", "1.37")
SECURITY = {
    "runAsUser": 0,
    "runAsGroup": 0,
    "runAsNonRoot": False,
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
EVERYTHING = {
    "image": {"repository": "registry.example.com/tracarbon", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "pull"}],
    "tags": {"cluster": "prod-1"},
    "location": {"plugin": "electricitymaps", "zone": "FR", "api_key": {"file": "/etc/tracarbon-secret/key"}},
    "kubernetes": {"usage": "metrics-api", "idle": "evenly", "namespaces": ["shop", "pay"], "podLabels": ["app"]},
    "gpu": {"enabled": True},
    "secretName": "tracarbon",
    "prometheus": {"port": 9100},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"enabled": True},
    "serviceAccount": {"annotations": {"a": "b"}},
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "low",
    "podAnnotations": {"c": "d"},
    "podLabels": {"e": "f"},
}
CHART_VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "bare": {
        "rbac": {"create": False},
        "serviceAccount": {"create": False},
        "prometheus": {"scrapeAnnotations": False},
    },
    "namespaces": {"kubernetes": {"namespaces": ["shop", "pay"]}},
    "metrics-api": {"kubernetes": {"usage": "metrics-api"}},
    "gpu": {"gpu": {"enabled": True}},
    "network-policy": {"networkPolicy": {"enabled": True}},
    "pod-monitor": {"podMonitor": {"enabled": True}},
}


def made_by_kustomize(folder: Path) -> dict[str, list[Thing]]:
    variants = {"base": kustomized(DEPLOY / "base"), "example": kustomized(DEPLOY / "example")}
    for name in COMPONENTS:
        variants[name] = with_components(folder, name)
    return {**variants, "all components": with_components(folder, *COMPONENTS)}


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Thing]]:
    """Whatever can be deployed, by name."""
    by_kustomize = made_by_kustomize(tmp_path_factory.mktemp("kustomize"))
    by_helm = {f"chart, {name}": rendered(values) for name, values in CHART_VARIANTS.items()}
    return {**{f"kustomize, {name}": things for name, things in by_kustomize.items()}, **by_helm}


def the(kind: str, things: list[Thing]) -> Thing:
    [found] = [thing for thing in things if thing["kind"] == kind]
    return found


def pod_of(things: list[Thing]) -> Thing:
    spec: Thing = the("DaemonSet", things)["spec"]["template"]["spec"]
    return spec


def container_of(things: list[Thing]) -> Thing:
    [container] = pod_of(things)["containers"]
    assert isinstance(container, dict)
    return container


def pipeline_of(things: list[Thing]) -> str:
    text: str = the("ConfigMap", things)["data"]["pipeline.toml"]
    return text


def host_paths(things: list[Thing]) -> dict[str, str]:
    volumes = (volume["hostPath"] for volume in pod_of(things)["volumes"] if "hostPath" in volume)
    return {volume["path"]: volume["type"] for volume in volumes}


def allowed(things: list[Thing]) -> set[tuple[str, str, str]]:
    """What the service account may do: API group, resource, verb."""
    rules = [rule for thing in things if thing["kind"] in ("Role", "ClusterRole") for rule in thing["rules"]]
    assert all(rule.keys() == {"apiGroups", "resources", "verbs"} for rule in rules)
    return {
        ability for rule in rules for ability in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


# What is made is what Kubernetes knows.


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_as_kubernetes_has_it(variants: dict[str, list[Thing]], version: str) -> None:
    for name, things in variants.items():
        for thing in things:
            if thing["kind"] != "PodMonitor":  # the Prometheus operator's own, which no schema here has
                try:
                    kubernetes_validate.validate(thing, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    pytest.fail(f"{name}, {thing['kind']}: {error.message} at {[*error.path]}")


def test_the_schemas_notice_a_slip() -> None:
    daemonset = the("DaemonSet", kustomized(DEPLOY / "base"))
    daemonset["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(daemonset, VERSIONS[0], strict=True)


def test_no_name_is_there_twice(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in things]
        assert len(set(keys)) == len(keys), name


def test_all_of_a_namespace_are_in_one(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        for thing in things:
            if thing["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
                assert thing["metadata"]["namespace"] == "tracarbon", (name, thing["kind"])


def test_references_lead_somewhere(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        pod, labels = pod_of(things), the("DaemonSet", things)["spec"]["template"]["metadata"]["labels"]
        [config] = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
        assert config == the("ConfigMap", things)["metadata"]["name"]
        mounted = {mount["name"] for mount in container_of(things)["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, name
        for selector in selectors(things):
            assert selector.items() <= labels.items(), name
        for binding in (thing for thing in things if thing["kind"].endswith("Binding")):
            [subject] = binding["subjects"]
            assert (subject["name"], subject["namespace"]) == (pod["serviceAccountName"], "tracarbon")
            role = (binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace"))
            assert role in [
                (each["kind"], each["metadata"]["name"], each["metadata"].get("namespace")) for each in things
            ]
        if name != "chart, bare":
            assert the("ServiceAccount", things)["metadata"]["name"] == pod["serviceAccountName"]


def selectors(things: list[Thing]) -> Iterator[Mapping[str, str]]:
    for thing in things:
        spec = thing.get("spec", {})
        for key in ("selector", "podSelector"):
            if key in spec:
                yield spec[key]["matchLabels"]


# The chart and the kustomization are one.


def plain(things: list[Thing]) -> dict[tuple[str, str], Any]:
    """Objects without what helm and kustomize each have ways of their own for, by kind and name."""
    found = {}
    for thing in json.loads(json.dumps(things)):
        hashless(thing)
        if thing["kind"] == "ConfigMap":
            thing["data"]["pipeline.toml"] = tomllib.loads(thing["data"]["pipeline.toml"])
        found[thing["kind"], thing["metadata"]["name"]] = thing
    return found


def hashless(node: Any) -> None:
    """Take out helm's labels, the ConfigMap's hash (a checksum of helm's, a part of the name of kustomize's)."""
    if isinstance(node, list):
        for item in node:
            hashless(item)
    elif isinstance(node, dict):
        for key in ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"):
            node.pop(key, None)
        for key in ("helm.sh/chart", "checksum/pipeline"):
            node.pop(key, None)
        if isinstance(node.get("name"), str):
            node["name"] = re.sub(r"^tracarbon-[a-z0-9]{10}$", "tracarbon", node["name"])
        for value in node.values():
            hashless(value)
        if node.get("annotations") == {}:
            del node["annotations"]


@pytest.mark.parametrize(
    ("component", "variant"),
    [("base", "defaults"), ("network-policy", "network-policy"), ("pod-monitor", "pod-monitor"), ("gpu", "gpu")],
)
def test_chart_and_kustomization_make_the_same(variants: dict[str, list[Thing]], component: str, variant: str) -> None:
    by_kustomize = plain(variants[f"kustomize, {component}"])
    by_kustomize.pop(("Namespace", "tracarbon"))  # helm makes it by --create-namespace
    by_helm = plain(variants[f"chart, {variant}"])
    if component == "gpu":  # kustomize leaves the pipeline to the user
        assert by_helm["ConfigMap", "tracarbon"]["data"]["pipeline.toml"]["sensors"].pop("gpu")["plugin"] == "nvidia"
    for thing in [*by_helm.values(), *by_kustomize.values()]:
        sort_named(thing)
    assert by_helm == by_kustomize


def sort_named(node: Any) -> None:
    """Put lists of what has names into one order: that of variables and volumes means nothing here."""
    if isinstance(node, list):
        if node and all(isinstance(item, dict) and "name" in item for item in node):
            node.sort(key=lambda item: item["name"])
        for item in node:
            sort_named(item)
    elif isinstance(node, dict):
        for value in node.values():
            sort_named(value)


def test_an_edited_pipeline_is_rolled_out(tmp_path: Path) -> None:
    def template(things: list[Thing]) -> Thing:
        found: Thing = the("DaemonSet", things)["spec"]["template"]
        return found

    assert template(rendered()) != template(rendered({"tags": {"a": "b"}}))
    before = template(with_components(tmp_path))
    with (tmp_path / "kubernetes/base/pipeline.toml").open("a") as file:
        file.write("# a word\n")
    assert before != template(with_components(tmp_path))


# Least privilege.


def test_api_server_lets_it_read_what_it_reads(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        asks_metrics_api = any(word in name for word in ("metrics-api", "all components", "everything"))
        expected = READ_BY_US | (READ_BY_METRICS_API if asks_metrics_api else set())
        assert allowed(things) == (set() if name == "chart, bare" else expected), name


def test_namespaces_that_are_not_looked_at_may_not_be_read(variants: dict[str, list[Thing]]) -> None:
    things = variants["chart, namespaces"]
    kinds = {(each["kind"], each["metadata"]["namespace"]) for each in things if "Role" in each["kind"]}
    assert kinds == {(kind, namespace) for kind in ("Role", "RoleBinding") for namespace in ("shop", "pay")}


def test_pods_have_no_privileges(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        pod, container = pod_of(things), container_of(things)
        assert container["securityContext"] == SECURITY, name
        assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}, name
        assert (pod["hostNetwork"], pod["hostPID"], pod["hostIPC"]) == (False, False, False), name
        assert "hostPort" not in str(container["ports"]), name
        assert "initContainers" not in pod and "shareProcessNamespace" not in pod, name


def test_of_the_host_only_this_is_seen(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        has_gpus = any(word in name for word in ("gpu", "all components", "everything"))
        assert host_paths(things) == SEEN_OF_THE_HOST | (SEEN_FOR_GPUS if has_gpus else {}), name


def test_nothing_is_writable(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        kinds = {key for volume in pod_of(things)["volumes"] for key in volume if key != "name"}
        assert kinds <= {"configMap", "secret", "hostPath"}, name
        of_the_host = {volume["name"] for volume in pod_of(things)["volumes"] if "hostPath" in volume}
        for mount in container_of(things)["volumeMounts"]:
            assert mount["readOnly"] is True, (name, mount)
            assert "mountPropagation" not in mount, (name, mount)
            # Mounts within mounts: without this, they stay as they are.
            assert mount.get("recursiveReadOnly") == ("IfPossible" if mount["name"] in of_the_host else None), name


def test_variables_hold_no_secret(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        container = container_of(things)
        assert "envFrom" not in container, name
        for variable in container["env"]:
            assert variable.get("valueFrom", {}).keys() <= {"fieldRef"}, (name, variable)
            assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"]), (name, variable)


def test_token_is_for_these_pods_alone(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        assert pod_of(things)["automountServiceAccountToken"] is True, name
        accounts = [each for each in things if each["kind"] == "ServiceAccount"]
        assert all(each["automountServiceAccountToken"] is False for each in accounts), name


def test_services_set_no_variables(variants: dict[str, list[Thing]]) -> None:
    """A Service called prometheus would set PROMETHEUS_PORT."""
    for name, things in variants.items():
        assert pod_of(things)["enableServiceLinks"] is False, name


# It runs everywhere, is looked after, and ends in peace.


def test_every_node_has_one() -> None:
    pod = pod_of(kustomized(DEPLOY / "base"))
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert "priorityClassName" not in pod


def test_the_end_is_waited_for(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        assert pod_of(things)["terminationGracePeriodSeconds"] > _LEAVE_SECONDS, name


def test_memory_is_limited_and_processor_time_is_not(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        resources = container_of(things)["resources"]
        assert resources["limits"] == {"memory": "128Mi"}, name
        assert resources["requests"].keys() == {"cpu", "memory"}, name


def test_probes_and_scrapes_find_the_port(variants: dict[str, list[Thing]]) -> None:
    for name, things in variants.items():
        container = container_of(things)
        [port] = container["ports"]
        variables = {variable["name"]: variable for variable in container["env"]}
        assert variables["PROMETHEUS_PORT"]["value"] == str(port["containerPort"]), name
        assert variables["PROMETHEUS_ADDRESS"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == port["name"], (name, probe)
        annotations = the("DaemonSet", things)["spec"]["template"]["metadata"].get("annotations", {})
        is_monitored = any(each["kind"] == "PodMonitor" for each in things)
        if is_monitored or name == "chart, bare":
            assert "prometheus.io/scrape" not in annotations, "by both, it is scraped twice"
        else:
            assert annotations["prometheus.io/port"] == str(port["containerPort"])
        for each in things:
            if each["kind"] == "PodMonitor":
                assert each["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]
            if each["kind"] == "NetworkPolicy":
                [rule] = each["spec"]["ingress"]
                assert rule["ports"] == [{"protocol": "TCP", "port": port["name"]}]
                assert rule["from"]


# The pipeline.


def checked(text: str, folder: Path) -> str:
    """Check a pipeline as the image would; returns what it says of problems."""
    for name in ("host/sys", "host/proc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.toml").write_text(text)
    env = environment(TRACARBON_HOST_ROOT=str(folder / "host"), NODE_NAME="node-real", PROMETHEUS_ADDRESS="127.0.0.1")
    done = run("check", "-c", "pipeline.toml", cwd=folder, env=env)
    return "" if done.status == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("name", ["base", "example"])
def test_kustomize_has_a_valid_pipeline(variants: dict[str, list[Thing]], tmp_path: Path, name: str) -> None:
    assert checked(pipeline_of(variants[f"kustomize, {name}"]), tmp_path) == ""


@pytest.mark.parametrize("name", CHART_VARIANTS)
def test_chart_makes_a_valid_pipeline(tmp_path: Path, name: str) -> None:
    values = json.loads(json.dumps(CHART_VARIANTS[name]))
    if name == "everything":
        (tmp_path / "key").write_text("secret")
        values["location"]["api_key"]["file"] = str(tmp_path / "key")
    assert checked(pipeline_of(rendered(values)), tmp_path) == ""


def test_example_shows_what_is_its_own() -> None:
    things = kustomized(DEPLOY / "example")
    assert tomllib.loads(pipeline_of(things))["location"] == {"country": "FR"}
    assert container_of(things)["image"] == f"registry.example.com/tracarbon:{tracarbon.__version__}"


@pytest.mark.parametrize(
    "text", ['it\'s "so"', "a\\b", "{{ .Values }}", "50 %, größer", "a: b # c", "<&>", "\a\x01\t\n"]
)
def test_values_of_any_text_arrive(text: str) -> None:
    values = {"tags": {text: text}, "location": {"plugin": "country", "country": text, "api_key": {"file": text}}}
    labels = {"kubernetes": {"podLabels": [text, "app"]}}
    document = tomllib.loads(pipeline_of(rendered({**values, **labels})))
    assert document["tags"] == {text: text}
    assert document["location"] == values["location"]
    assert document["generators"]["energy_kubernetes"]["pod_labels"] == [text, "app"]
    assert document["generators"]["energy_kubernetes"] == document["generators"]["carbon_kubernetes"]


def test_values_keep_their_types() -> None:
    location = {"plugin": "static", "co2g_kwh": 41.5, "count": 7, "live": True, "zones": ["FR", "DE"]}
    document = tomllib.loads(pipeline_of(rendered({"location": location})))
    assert document["location"] == location
    assert {name: type(value) for name, value in document["location"].items()}["count"] is int


def test_a_pipeline_of_ones_own_is_taken_as_it_is() -> None:
    mine = '# mine\n[sensors.estimate]\n\n  [tags]\n  a = "{{ b }}"\n'
    assert pipeline_of(rendered({"pipeline": mine, "gpu": {"enabled": True}})).strip() == mine.strip()


@pytest.mark.parametrize(
    "values",
    [
        {"intervall": "15s"},
        {"interval": 15},
        {"interval": "soon"},
        {"kubernetes": {"usage": "guess"}},
        {"kubernetes": {"namespaces": ["Not A Name"]}},
        {"location": {"api_key": {"secret": "x"}}},
        {"prometheus": {"port": "8081"}},
        {"prometheus": {"port": 0}},
        {"networkPolicy": {"enabled": True, "from": []}},
        {"image": {"digest": "latest"}},
        {"securityContext": {"privileged": True}},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    done = helm("template", "tracarbon", CHART, values=values)
    assert done.returncode != 0
    assert "don't meet the specifications" in done.stderr


def test_helm_has_nothing_to_say() -> None:
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_every_value_is_described_by_the_schema() -> None:
    def keys(node: Any, schema: Any, at: str) -> Iterator[str]:
        for name, value in node.items():
            yield f"{at}{name}" if name not in schema["properties"] else ""
            if isinstance(value, dict) and "properties" in schema["properties"].get(name, {}):
                yield from keys(value, schema["properties"][name], f"{at}{name}.")

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = parsed((CHART / "values.yaml").read_text())[0]
    assert not any(keys(values, schema, ""))
    assert schema["properties"].keys() - values.keys() == {"global"}


# The image.


@pytest.fixture(scope="module")
def containerfile(tmp_path_factory: pytest.TempPathFactory) -> DockerfileParser:
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(DEPLOY / "Containerfile", folder / "Dockerfile")
    return DockerfileParser(str(folder))


def last(containerfile: DockerfileParser, instruction: str) -> str:
    found: str = [each["value"] for each in containerfile.structure if each["instruction"] == instruction][-1]
    return found


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", DEPLOY / "Containerfile"], capture_output=True, text=True, timeout=180, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_image_runs_what_the_pods_run(containerfile: DockerfileParser) -> None:
    assert json.loads(last(containerfile, "ENTRYPOINT")) == ["tracarbon"]
    container = container_of(kustomized(DEPLOY / "base"))
    assert json.loads(last(containerfile, "CMD")) == container["args"]
    assert "command" not in container
    user = last(containerfile, "USER").partition(":")[0]
    assert int(user) > 0


def test_image_copies_nothing_from_here(containerfile: DockerfileParser) -> None:
    copies = [each["value"] for each in containerfile.structure if each["instruction"] in ("COPY", "ADD")]
    assert all(value.startswith("--from=") for value in copies)


def test_image_has_distributions_of_this_release(containerfile: DockerfileParser) -> None:
    [installed] = [each["value"] for each in containerfile.structure if each["instruction"] == "RUN"]
    requirements = [
        *map(Requirement, re.findall(r'"(tracarbon-[^"]+)"', installed.replace("${TRACARBON_VERSION}", "0")))
    ]
    for requirement in requirements:
        assert str(requirement.specifier) == "==0"
        project = tomllib.loads((ROOT / requirement.name / "pyproject.toml").read_text())["project"]
        assert requirement.extras <= project.get("optional-dependencies", {}).keys()
    names = {requirement.name for requirement in requirements}
    assert names >= {"tracarbon-core", "tracarbon-sensor-rapl", "tracarbon-k8s", "tracarbon-exporter-prometheus"}


def test_all_are_of_one_release(containerfile: DockerfileParser) -> None:
    chart = parsed((CHART / "Chart.yaml").read_text())[0]
    images = {container_of(things)["image"] for things in (kustomized(DEPLOY / "base"), rendered())}
    assert images == {f"registry.invalid/tracarbon:{tracarbon.__version__}"}, "a public one could be anybody's"
    assert str(chart["appVersion"]) == str(chart["version"]) == tracarbon.__version__
    assert last(containerfile, "ARG") == f"TRACARBON_VERSION={tracarbon.__version__}"


# What README.md says.


def test_readme_names_what_is_there() -> None:
    text = (DEPLOY / "README.md").read_text()
    for name in COMPONENTS:
        assert f"components/{name}" in text
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert (DEPLOY / path).exists(), path
    for path in (*SEEN_OF_THE_HOST, *SEEN_FOR_GPUS):
        assert f"`{path}`" in text


def commands(program: str) -> list[list[str]]:
    """The README's command lines of a program."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (DEPLOY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line[0] == program]


def test_helm_can_do_what_readme_says() -> None:
    found = commands("helm")
    assert len(found) == 3
    for _, upgrade, install, release, chart, *options in found:
        assert (upgrade, install) == ("upgrade", "--install")
        done = helm("template", release, DEPLOY / chart, *options)
        assert done.returncode == 0, done.stderr
        for thing in parsed(done.stdout):
            kubernetes_validate.validate(thing, VERSIONS[0], strict=True)


def test_kubectl_can_do_what_readme_says() -> None:
    applied = [line[2:] for line in commands("kubectl") if line[1] == "apply"]
    assert [option for option, _ in applied] == ["-k", "-f"]
    for option, path in applied:
        assert kustomized(DEPLOY / path) if option == "-k" else (DEPLOY / path).is_file()


# A pod, run by a real container runtime.

TRY_TO_WRITE = """
import os
from pathlib import Path
found = []
for path in [*map(Path, ("/", "/tmp", "/opt", "/host", "/etc/tracarbon")), *Path("/host").rglob("*")]:
    try:
        if path.is_dir():
            (path / "mine").touch()
        else:
            os.close(os.open(path, os.O_WRONLY))
    except OSError:
        continue
    found.append(str(path))
print("\\n".join(found))
"""


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    return PowercapTree(tmp_path / "host" / "sys", one_socket())


@pytest.fixture
def host(tmp_path: Path, tree: PowercapTree) -> dict[str, Path]:
    """What a pod sees of its node: this machine's /proc, a made-up /sys, and an API server that is away.

    The energy counters may be read by root alone. One pod is there, whose name nobody tells.
    """
    cgroups = CgroupTree(tmp_path / "host")
    cgroups.container(cgroups.pod(uid(1)), container_id(1))
    (cgroups.all_pods / "cgroup.kill").touch(mode=0o200)
    for name in ("config", "account"):
        (tmp_path / name).mkdir()
    (tmp_path / "config" / "pipeline.toml").write_text(pipeline_of(kustomized(DEPLOY / "base")))
    (tmp_path / "account" / "token").write_text("token")
    (tmp_path / "account" / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    of_sys = {path: tmp_path / "host" / path[1:] for path in SEEN_OF_THE_HOST if path.startswith("/sys")}
    volumes = {"configMap": tmp_path / "config", "serviceAccount": tmp_path / "account"}
    return {path: Path(path) for path in SEEN_OF_THE_HOST} | of_sys | volumes


def counters_of(tree: PowercapTree) -> list[str]:
    return ["/host/sys/" + str(path.relative_to(tree.root)) for path in tree.virtual_folder.rglob("energy_uj")]


@needs_pods
def test_pod_reads_the_counters_and_writes_nothing(host: dict[str, Path], tree: PowercapTree, tmp_path: Path) -> None:
    pod = pod_of(kustomized(DEPLOY / "base"))
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in tree.virtual_folder.rglob("energy_uj"))
    read = said_by(pod, tmp_path / "reading", host, "/bin/cat", *counters_of(tree), "/host/proc/stat")
    assert read.startswith("1000000") and "\ncpu0 " in read
    assert said_by(pod, tmp_path / "writing", host, sys.executable, "-c", TRY_TO_WRITE).split() == []
    status = said_by(pod, tmp_path / "status", host, "/bin/cat", "/proc/self/status")
    assert re.findall(r"^(Cap\w+|NoNewPrivs):\t0*(\w)$", status, re.MULTILINE) == [
        *((f"Cap{name}", "0") for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
        ("NoNewPrivs", "1"),
    ]


@needs_pods
def test_writing_would_be_noticed(host: dict[str, Path], tmp_path: Path) -> None:
    pod = pod_of(kustomized(DEPLOY / "base"))
    for mount in pod["containers"][0]["volumeMounts"]:
        mount["readOnly"] = mount["name"] != "cgroup"
    said = said_by(pod, tmp_path / "pod", host, sys.executable, "-c", TRY_TO_WRITE).split()
    assert "/host/sys/fs/cgroup/kubepods/cgroup.kill" in said


@needs_pods
@pytest.mark.parametrize("added", [[], ["DAC_READ_SEARCH"]], ids=["bare", "with DAC_READ_SEARCH"])
def test_another_user_could_not_read_the_counters(
    host: dict[str, Path], tree: PowercapTree, tmp_path: Path, added: list[str]
) -> None:
    """Why it is root's pod: a capability does not help another user, whatever Kubernetes adds."""
    tmp_path.chmod(0o755)
    pod = pod_of(kustomized(DEPLOY / "base"))
    security = pod["containers"][0]["securityContext"]
    security |= {"runAsUser": 65534, "runAsGroup": 65534, "capabilities": {"drop": ["ALL"], "add": added}}
    with pytest.raises(PodError, match="Permission denied"):
        said_by(pod, tmp_path / "pod", host, "/bin/cat", *counters_of(tree))


def pods_end(
    things: list[Thing], folder: Path, host: dict[str, Path], tree: PowercapTree, *shown: str
) -> tuple[str, str]:
    """Run a pod until it has answered every probe and has shown what it is to show, and stop it as a kubelet does.

    Returns its metrics and its log. It is ready with the first figure, and others come later.
    """
    container = container_of(things)
    port = container["ports"][0]["containerPort"]
    metrics = ""

    def answers(path: str) -> bool:
        tree.advance("intel-rapl:0", 1_000_000)
        return deploy_pod.ask(process, path, port)[0] == 200

    def shows_all() -> bool:
        tree.advance("intel-rapl:0", 1_000_000)
        nonlocal metrics
        status, metrics = deploy_pod.ask(process, "/metrics", port)
        return status == 200 and all(re.search(pattern, metrics, re.MULTILINE) for pattern in shown)

    with run_pod(pod_of(things), folder, host) as process:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container[probe]["httpGet"]["path"]
            wait_until(lambda path=path: answers(path), f"the answer to {path}")
        wait_until(shows_all, f"all of {shown}")
        process.terminate()
        _, log = process.communicate(timeout=_LEAVE_SECONDS + 60)
    assert process.returncode == 0, log
    assert "tracarbon report" in log
    return metrics, log


@needs_pods
def test_pod_measures_answers_probes_and_ends_in_peace(
    host: dict[str, Path], tree: PowercapTree, tmp_path: Path
) -> None:
    shown = [r'^tracarbon_provenance_info\{.*_cpu".*sensor="rapl"', r"^tracarbon_energy_consumption_kubernetes_total\{"]
    metrics, _ = pods_end(kustomized(DEPLOY / "base"), tmp_path / "pod", host, tree, *shown)
    [resident] = re.findall(r"^process_resident_memory_bytes (\S+)", metrics, re.MULTILINE)
    assert float(resident) < 128 * 2**20


@needs_pods
def test_a_node_without_cgroups_is_measured_all_the_same(
    host: dict[str, Path], tree: PowercapTree, tmp_path: Path
) -> None:
    shutil.rmtree(host["/sys/fs/cgroup"])
    host["/sys/fs/cgroup"].mkdir()
    shown = r"^tracarbon_energy_consumption_host\{"
    metrics, log = pods_end(kustomized(DEPLOY / "base"), tmp_path / "pod", host, tree, shown)
    assert "tracarbon_energy_consumption_kubernetes" not in metrics
    assert "there are no cgroups" in log
