"""The composition root of everything but the front door: what runs on the cluster, and whether it does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
import ray.exceptions
import structlog
from ray import serve
from ray.serve import RunTarget, run_many
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from actors.flow_runner import APP_NAME
from actors.gateway.providers import REMOTE_APP
from actors.gateway.state_actor import ensure_gateway_state
from actors.gpu import is_gpu_build
from actors.local_models import local_models
from actors.model_placement import placed_model, placement_problem
from actors.model_replica import build_model_app, model_app_name
from actors.ray_flags import NAMESPACE
from actors.readiness import Part, cause_of, readiness_facts
from actors.stores.connection_check import check_connections
from actors.stores.open_store import open_store
from actors.telemetry.logs import configure_logging
from flows.validation import check_flows
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import InternalError
from registries.loader import load_catalog
from registries.specs import ModelSpec

API_DEADLINE_S = 120.0
"""The API needs 10 s on two idle cores."""
_POLL_S = 0.1


def deploy(config: RuntimeConfig, application: serve.Application, address: str | None = None) -> None:
    """Put the runtime on a running Ray cluster; returns when the API answers, while models still load.

    ``application`` is the front door bound to its runner (serve_app.app.build_app). The calling process's
    environment must be that of the cluster (actors.ray_flags), and it should stay: Ray ends the experts'
    idle workers together with the job that deployed (see ``hold``). Raises ValidationError for a wrong
    catalog, StoreError for a database that cannot be opened, InternalError when the API does not come up.
    """
    configure_logging(config, "deployer")
    catalog = load_catalog(config)
    check_flows(catalog)
    models = local_models(config, catalog)
    if not ray.is_initialized():
        ray.init(
            address=address or os.environ.get("RAY_ADDRESS", "auto"), namespace=NAMESPACE, log_to_driver=False
        )
    asyncio.run(check_connections(config, sum(node["Alive"] for node in ray.nodes())))
    _start_serve(config)
    ensure_gateway_state(config)
    if APP_NAME not in serve.status().applications:
        asyncio.run(_release_orphans(config))
    _run([RunTarget(target=application, name=APP_NAME, route_prefix="/")])
    _await_api()
    problems = placement_problems(config, models)
    cluster = ray.cluster_resources()
    placed = [placed_model(model, cluster, is_gpu_build()) for model in models if model.key not in problems]
    _run(
        [
            RunTarget(target=build_model_app(m, config), name=model_app_name(m.key), route_prefix=None)
            for m in placed
        ]
    )
    if needs_remote_adapter(catalog):
        # Imported here: a runtime without such models never needs the module.
        from actors.remote_adapter import build_remote_adapter_app

        _run([RunTarget(target=build_remote_adapter_app(config), name=REMOTE_APP, route_prefix=None)])
    log = structlog.get_logger("actors.runtime")
    for key, reason in problems.items():
        log.error("model_not_placed", model=key, reason=reason)
    log.info("deployed", models=[m.key for m in placed])


def hold() -> None:
    """Keep this driver's job alive until SIGTERM or SIGINT, or until Ray is gone.

    Idle workers of an ended job are killed: without its deployer the experts start cold, 1.2 s instead of
    20 ms each time.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(5.0):
        try:
            ray.nodes()
        except (ray.exceptions.RayError, ConnectionError, RuntimeError):
            return


async def readiness(config: RuntimeConfig, catalog: Catalog) -> dict[str, Any]:
    """What /api/ready shows: status and parts (api, each local model by its key, remote-adapter)."""
    models = local_models(config, catalog)
    try:
        status = await asyncio.to_thread(serve.status)
        problems = await asyncio.to_thread(placement_problems, config, models)
    except (RayServeException, ray.exceptions.RayError) as error:
        reason = f"Serve does not answer ({type(error).__name__})"
        return {"status": "loading", "parts": {"api": {"state": "loading", "reason": reason}}}
    return readiness_facts(runtime_parts(config, catalog), status.applications, problems)


def placement_problems(config: RuntimeConfig, models: Sequence[ModelSpec]) -> dict[str, str]:
    """Models that no node of this cluster can ever hold, with the reason. Blocks for a round trip."""
    cluster = ray.cluster_resources()
    found = {model.key: placement_problem(model, config, cluster, is_gpu_build()) for model in models}
    return {key: reason for key, reason in found.items() if reason is not None}


def runtime_parts(config: RuntimeConfig, catalog: Catalog) -> list[Part]:
    """Everything that the configuration asks for."""
    parts = [Part("api", APP_NAME)]
    parts += [Part(model.key, model_app_name(model.key)) for model in local_models(config, catalog)]
    if needs_remote_adapter(catalog):
        parts.append(Part("remote-adapter", REMOTE_APP))
    return parts


def needs_remote_adapter(catalog: Catalog) -> bool:
    """Whether any enabled model goes through litellm."""
    return any(model.engine == "litellm" for model in catalog.list_models())


def _start_serve(config: RuntimeConfig) -> None:
    serve.start(
        http_options=HTTPOptions(host="0.0.0.0", port=config.http_port, location="EveryNode"),
        logging_config=LoggingConfig(enable_access_log=False),
    )


def _run(targets: Sequence[RunTarget]) -> None:
    """Hand applications to Serve without waiting for their replicas."""
    if targets:
        run_many(
            list(targets), wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )


def _await_api() -> None:
    deadline = time.monotonic() + API_DEADLINE_S
    while time.monotonic() < deadline:
        application = serve.status().applications.get(APP_NAME)
        state = application.status.value if application else "NOT_STARTED"
        if state == "RUNNING":
            return
        if application is not None and state == "DEPLOY_FAILED":
            failed = [d.message for d in application.deployments.values() if d.message]
            raise InternalError(
                f"the API could not be started: {cause_of((failed or [application.message])[0])}"
            )
        time.sleep(_POLL_S)
    raise InternalError(f"the API did not start within {API_DEADLINE_S:g} s")


async def _release_orphans(config: RuntimeConfig) -> None:
    """Runs of a runtime that died go on at once: their runners are known to be gone."""
    store = await open_store(config)
    try:
        count = await store.release_orphans(f"{config.instance}:")
    finally:
        await store.close()
    if count:
        structlog.get_logger("actors.runtime").warning("runs_go_on", count=count)
