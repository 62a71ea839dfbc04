"""The OpenAPI document tells everything that the routes do."""

from __future__ import annotations

import json
from typing import Any

from serve_app.errors import STATUS_BY_CODE
from serve_app.run_schemas import RunDetail, RunList
from tests.unit.serve_app.front_door import FrontDoor, front_door
from tests.unit.serve_app.scripted_runner import failed_story

KEYED_AND_RUN_ROUTES: dict[tuple[str, str], set[int]] = {
    ("post", "/api/inference"): {200, 400, 401, 402, 404, 413, 422, 429, 500, 502, 503, 504, 507},
    ("post", "/api/orchestrate"): {200, 400, 401, 402, 404, 409, 413, 422, 429, 500, 502, 503, 504, 507},
    ("post", "/api/runs"): {200, 202, 400, 401, 402, 404, 409, 413, 422, 429, 500, 502, 503, 504, 507},
    ("post", "/api/runs/stream"): {200, 400, 401, 402, 404, 409, 413, 422, 429, 500, 502, 503, 504, 507},
    ("get", "/api/runs"): {200, 400, 401, 503},
    ("get", "/api/runs/{run_id}"): {200, 400, 401, 404, 409, 503},
    ("post", "/api/runs/{run_id}/cancel"): {200, 202, 400, 401, 404, 409, 422, 503, 507},
    ("post", "/api/runs/{run_id}/restart"): {200, 202, 400, 401, 404, 409, 413, 422, 429, 500, 503, 504, 507},
    ("post", "/api/runs/{run_id}/resume"): {200, 202, 400, 401, 404, 409, 413, 422, 429, 500, 503, 504, 507},
    ("post", "/api/runs/{run_id}/fork"): {200, 202, 400, 401, 404, 409, 413, 422, 429, 500, 503, 504, 507},
    ("post", "/api/runs/{run_id}/feedback"): {200, 400, 401, 404, 413, 422, 503, 507},
    ("get", "/api/runs/{run_id}/events"): {200, 400, 401, 404, 429, 503},
}


async def document(door: FrontDoor) -> dict[str, Any]:
    answer: dict[str, Any] = (await door.client.get("/openapi.json")).json()
    return answer


async def test_every_route_that_takes_a_key_or_shows_runs_tells_its_answers() -> None:
    async with front_door() as door:
        paths = (await document(door))["paths"]
    for (method, path), statuses in KEYED_AND_RUN_ROUTES.items():
        route = paths[path][method]
        # 422 is FastAPI's own for path parameters, which are texts here and always valid.
        told = {int(status) for status in route["responses"]}
        assert told - {422} == statuses - {422}, (method, path)
        assert 422 not in statuses or 422 in told, (method, path)
        names = {parameter["name"] for parameter in route.get("parameters", ())}
        assert ("Idempotency-Key" in names) is (method == "post"), (method, path)
        assert ("run_id" in names) is ("{run_id}" in path)
        for status in statuses - {200, 202}:
            schema = route["responses"][str(status)]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("/ErrorAnswer"), (method, path, status)


async def test_every_reference_leads_somewhere_and_every_body_has_a_schema() -> None:
    async with front_door() as door:
        told = await document(door)
    schemas = told["components"]["schemas"]
    text = json.dumps(told)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"', 1)[0] in schemas
    for name in ("CreateRunRequest", "RestartRequest", "ResumeRequest", "ForkRequest", "FeedbackRequest"):
        assert f"#/components/schemas/{name}" in text
    assert "run.waiting" in json.dumps(schemas["RunEvent"]) and "RunUpdate" in schemas


async def test_every_status_of_the_table_of_errors_is_told_somewhere() -> None:
    async with front_door() as door:
        paths = (await document(door))["paths"]
    told = {int(s) for routes in paths.values() for route in routes.values() for s in route["responses"]}
    assert set(STATUS_BY_CODE.values()) - {405} <= told


async def test_what_is_shown_fits_its_schema() -> None:
    async with front_door() as door:
        ask = {"prompt": "What is 48 + 37?", "flow_type": "challenge"}
        await door.client.post("/api/runs", json=ask)
        await door.client.post("/api/orchestrate", json=ask)
        door.runner.story = failed_story
        await door.client.post("/api/orchestrate", json=ask)
        await door.client.post("/api/runs/run-2/feedback", json={"rating": 1})
        RunList.model_validate((await door.client.get("/api/runs")).json())
        for number in (1, 2, 3):
            shown = (await door.client.get(f"/api/runs/run-{number}?state=true")).json()
            RunDetail.model_validate(shown)
            assert set(RunDetail.model_fields) <= set(shown)
