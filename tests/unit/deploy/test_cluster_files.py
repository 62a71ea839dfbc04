"""cluster.yaml, deploy/*: valid by the schemas of those who read them, and true to the code."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from actors import flow_runner, ray_flags
from actors.model_replica import model_app_name
from registries.contracts.config import RuntimeConfig
from registries.loader import load_catalog

ROOT = Path(__file__).resolve().parents[3]
# They differ for two runtimes on one machine, or are set by whoever starts Ray there.
PER_MACHINE = re.compile(
    r"RAY_AUTH_TOKEN_PATH|RAY_SERVE_HAPROXY_(?!BALANCE)|RAY_SERVE_FALLBACK_PROXY_|RAY_SERVE_HTTP_PROXY_"
)


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / "rayservice.yaml").read_text()))


@pytest.fixture(scope="module")
def serve_config(documents: list[dict[str, Any]]) -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(yaml.safe_load(documents[0]["spec"]["serveConfigV2"]))


def cluster_flags() -> dict[str, str]:
    """The flags of a cluster's nodes with the values that a single machine gets."""
    environment = ray_flags.ray_environment(RuntimeConfig(home="/home/p"), ray_flags.find_ports())
    names = {flag.name for flag in ray_flags.FLAGS} | {
        "LANGGRAPH_STRICT_MSGPACK",
        "LITELLM_LOCAL_MODEL_COST_MAP",
    }
    return {n: v for n, v in environment.items() if n in names and not PER_MACHINE.match(n)}


def test_every_node_gets_the_pinned_packages(cluster: dict[str, Any]) -> None:
    installs = [part for c in cluster["setup_commands"] for part in c.split("bin/pip ") if "$wheel[" in part]
    assert len(installs) == 2
    for command in installs:
        assert "-c ~/parley/constraints.txt" in command, command


def test_ray_up_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(cluster)
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["head_node_type"] == "head"
    assert set(types) == {"head", "cpu_worker", "gpu_worker"}
    assert [name for name, node in types.items() if node["resources"].get("GPU")] == ["gpu_worker"]
    assert types["head"]["max_workers"] == 0


def test_the_schema_is_really_asked(cluster: dict[str, Any]) -> None:
    wrong = prepare_config({**cluster, "max_workers": "many"})
    with pytest.raises(Exception, match="many"):
        validate_config(wrong)


def test_what_is_mounted_is_what_the_commands_use(cluster: dict[str, Any]) -> None:
    for source in cluster["file_mounts"].values():
        known = (ROOT / source).exists() or source in {"./dist", "~/.parley/ray.token"}
        assert known, source
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    for command in (line for line in starts if "ray start" in line):
        assert "source ~/parley/deploy/ray_environment.sh" in command
        assert "6379" not in command


def test_every_node_has_our_flags_with_our_values() -> None:
    script = (ROOT / "deploy" / "ray_environment.sh").read_text()
    words = [word for word in shlex.split(script, comments=True) if word != "export"]
    exported = dict(word.split("=", 1) for word in words)
    assert exported.pop("RAY_AUTH_TOKEN_PATH") == "${PARLEY_HOME:-$HOME/.parley}/ray.token"
    assert exported == cluster_flags()


def test_every_pod_has_our_flags_with_our_values(documents: list[dict[str, Any]]) -> None:
    cluster = documents[0]["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    expected = cluster_flags()
    del expected["RAY_AUTH_MODE"]  # KubeRay sets it, with the token, from authOptions
    assert cluster["authOptions"] == {"mode": "token"}
    for group in groups:
        container = group["template"]["spec"]["containers"][0]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert environment.pop("PARLEY_HOME") == container["volumeMounts"][0]["mountPath"]
        assert environment == expected
        assert container["envFrom"] == [{"secretRef": {"name": "parley"}}]
    assert [group.get("groupName", "head") for group in groups] == ["head", "cpu", "gpu"]
    assert groups[2]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert json.loads(json.loads(cluster["headGroupSpec"]["rayStartParams"]["resources"])) == {"front": 1000}


def test_serve_accepts_the_applications(serve_config: ServeDeploySchema) -> None:
    assert serve_config.http_options.port == 8001
    for application in serve_config.applications:
        module, name = application.import_path.split(":")
        builder = getattr(importlib.import_module(module), name)
        assert list(inspect.signature(builder).parameters) == ["args"]


def test_the_applications_are_those_of_the_runtime(serve_config: ServeDeploySchema) -> None:
    catalog = load_catalog(RuntimeConfig(home="/home/p"))
    local = {model_app_name(model.key): model.key for model in catalog.list_models() if model.is_local}
    declared = {app.name: app for app in serve_config.applications}
    assert set(declared) == {flow_runner.APP_NAME, *local}
    assert {name: declared[name].args["key"] for name in local} == local
    assert [app.route_prefix for app in serve_config.applications if app.route_prefix] == ["/"]


def test_the_database_stays_on_one_node(serve_config: ServeDeploySchema) -> None:
    front = next(app for app in serve_config.applications if app.name == flow_runner.APP_NAME)
    actors = {each.name: each.ray_actor_options.resources for each in front.deployments}
    assert actors == {"Ingress": {"front": 1}, "FlowRunner": {"front": 1}}


def test_prometheus_carries_the_key_by_file() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    job = config["scrape_configs"][0]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8001"]}]
    assert job["authorization"] == {"type": "Bearer", "credentials_file": "/etc/prometheus/parley.key"}


def test_the_litellm_proxy_gets_its_secrets_from_outside() -> None:
    folder = ROOT / "deploy" / "litellm-proxy"
    service = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["litellm"]
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    secrets = [value for name, value in service["environment"].items() if name.endswith("KEY")]
    assert secrets and all(value.startswith("${") for value in secrets)
    assert settings["litellm_settings"]["num_retries"] == 0
    for model in settings["model_list"]:
        variable = model["litellm_params"]["api_key"].removeprefix("os.environ/")
        assert variable in service["environment"]
