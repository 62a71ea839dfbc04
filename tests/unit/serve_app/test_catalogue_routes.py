from __future__ import annotations

import httpx

from registries.contracts.errors import CapacityError, StoreError
from serve_app.routes.catalogue import model_entry
from tests.unit.serve_app.front_door import CATALOG, front_door


async def test_models_have_every_field_of_the_registry_and_their_state() -> None:
    async with front_door() as door:
        body = (await door.client.get("/api/models")).json()
    models = {model["key"]: model for model in body["models"]}
    assert set(models) == set(CATALOG.models.names())
    assert models["nano-m"]["state"] == "ready" and models["nano-m"]["context_window"] > 0
    assert models["nano-s"]["state"] == "failed" and models["nano-s"]["reason"] == "no weights"
    assert {m["state"] for m in models.values() if not m["enabled"]} <= {"disabled"}
    assert body["tiers"] == CATALOG.tiers


def test_headers_of_a_model_are_shown_by_their_names_alone() -> None:
    options = {"headers": {"X-Tenant": "canary", "Authorization": "canary"}, "timeout_s": 5}
    spec = CATALOG.get_model("nano-m").model_copy(update={"engine_options": options})
    shown = model_entry(spec, {})
    assert set(shown.engine_options["headers"]) == {"X-Tenant", "Authorization"}
    assert shown.engine_options["timeout_s"] == 5 and "canary" not in shown.model_dump_json()
    assert spec.engine_options["headers"]["X-Tenant"] == "canary"
    odd = spec.model_copy(update={"engine_options": {"headers": ["canary"]}})
    assert "canary" not in model_entry(odd, {}).model_dump_json()


async def test_strategies_and_the_default() -> None:
    async with front_door() as door:
        body = (await door.client.get("/api/strategies")).json()
    names = [strategy["name"] for strategy in body["strategies"]]
    assert body["default"] == "optimized" and "optimized" in names and names == sorted(names)


async def test_flows_and_one_in_full() -> None:
    async with front_door() as door:
        listed = (await door.client.get("/api/flows")).json()["flows"]
        one = (await door.client.get("/api/flows/challenge")).json()
        missing = await door.client.get("/api/flows/chalenge")
    assert [flow["name"] for flow in listed] == CATALOG.flows.names()
    assert one["version"] == CATALOG.flows.get("challenge").version and one["mermaid"].startswith("flowchart")
    assert one["spec"]["nodes"] and "creator" in one["roles"]
    assert missing.status_code == 404 and "challenge" in missing.json()["error"]["message"]


async def test_system_and_metrics() -> None:
    async with front_door() as door:
        system = (await door.client.get("/api/system")).json()
        metrics = await door.client.get("/metrics")
        door.faults.down = StoreError("the database is away")
        without = (await door.client.get("/api/system")).json()
        door.cluster.error = CapacityError("Serve's controller does not answer", retry_after_s=1)
        away = await door.client.get("/api/system")
    assert system["gateway"] == {"breakers": {}} and system["machine"]["cpu_percent"] == 3.0
    assert system["deployments"]["parley"]["Ingress"]["replicas"] == 1
    assert system["ingress"] == {"live_runs": 0} and system["version"] == "1.2.3"
    assert system["store"]["backend"] == "sqlite" and system["store"]["details"]["size_bytes"] > 0
    assert without["store"] == {"state": "away", "reason": "the database is away"}
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "workflow_executions_total" in metrics.text
    assert away.status_code == 429


async def test_openapi_has_every_route_and_schema() -> None:
    async with front_door() as door:
        document = (await door.client.get("/openapi.json")).json()
    for path in (
        "/api/inference",
        "/api/orchestrate",
        "/api/models",
        "/api/strategies",
        "/api/flows",
        "/api/flows/{name}",
        "/api/health",
        "/api/ready",
        "/api/system",
        "/metrics",
        "/api/runs/{run_id}",
    ):
        assert path in document["paths"]
    schemas = document["components"]["schemas"]
    assert {"InferenceRequest", "OrchestrateRequest", "GenerationResult", "RunResult"} <= set(schemas)
    assert {"RunEvent", "TokenEvent", "ErrorAnswer", "NodeResult", "FlowSpec", "ModelSpec"} - set(
        schemas
    ) <= {"ModelSpec"}
    asked = document["paths"]["/api/inference"]["post"]["requestBody"]["content"]["application/json"]
    assert asked["schema"] == {"$ref": "#/components/schemas/InferenceRequest"}
    assert set(references(document)) <= set(schemas)


async def test_docs_need_nothing_from_elsewhere() -> None:
    async with front_door() as door:
        page = await door.client.get("/docs")
        script = await door.client.get("/docs/assets/swagger-ui-bundle.js")
        style = await door.client.get("/docs/assets/swagger-ui.css")
        start = await door.client.get("/docs/assets/start.js")
        other = await door.client.get("/docs/assets/..%2f..%2fetc%2fpasswd")
    assert "http" not in page.text and "<script>" not in page.text
    assert len(script.content) > 100_000 and len(style.content) > 10_000
    assert "/openapi.json" in start.text and other.status_code == 404
    assert "script-src" not in page.headers["content-security-policy"]


async def test_request_ids_are_not_doubled_behind_serve() -> None:
    async with front_door() as door:
        answer: httpx.Response = await door.client.get("/api/health")
    assert len(answer.headers.get_list("x-request-id")) == 1


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rsplit("/", 1)[1]] if isinstance(value.get("$ref"), str) else []
        return own + [name for part in value.values() for name in references(part)]
    if isinstance(value, list):
        return [name for part in value for name in references(part)]
    return []
