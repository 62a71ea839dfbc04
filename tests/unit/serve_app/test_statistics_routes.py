from __future__ import annotations

from typing import Any

import pytest

from registries.contracts.errors import CapacityError, StoreError
from tests.conformance.stores.sample_runs import end, take
from tests.unit.serve_app.front_door import FrontDoor, front_door


async def fill(door: FrontDoor) -> None:
    """Two runs of ann, one of them failed, and one of eve."""
    await end(door.store, await take(door.store, "r1", user="ann"))
    await end(door.store, await take(door.store, "r2", user="ann"), "failed")
    await end(door.store, await take(door.store, "r3", user="eve"))


async def ask(door: FrontDoor, path: str, status: int = 200) -> dict[str, Any]:
    answer = await door.client.get(path)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_figures_of_the_last_hours() -> None:
    async with front_door() as door:
        await fill(door)
        shown = await ask(door, "/api/stats")
        assert shown["until"] - shown["since"] == pytest.approx(24 * 3600)
        assert shown["totals"]["runs"] == 3 and shown["totals"]["success_rate"] == pytest.approx(2 / 3)
        assert shown["totals"]["errors"] == {"provider_error": 1}
        assert {name: f["runs"] for name, f in shown["by_user"].items()} == {"ann": 2, "eve": 1}
        assert shown["by_model"]["tiny-model"]["calls"] == 3
        assert shown["by_provider"]["local"]["tokens"] == {"prompt": 30, "completion": 15, "total": 45}
        assert sum(point["runs"] for point in shown["trend"]) == 3
        assert (await ask(door, "/api/stats?hours=0.5&user=eve"))["totals"]["runs"] == 1


async def test_a_users_dashboard() -> None:
    async with front_door() as door:
        await fill(door)
        shown = await ask(door, "/api/stats/users/ann?hours=2")
        assert shown["user"] == "ann" and shown["totals"]["runs"] == 2
        assert shown["favourite_flows"][0]["flow"] == "challenge"
        assert [run["run_id"] for run in shown["recent"]] == ["r2", "r1"]
        assert shown["recent"][0]["error"]["code"] == "provider_error"
        nobody = await ask(door, "/api/stats/users/nobody")
        assert nobody["totals"]["runs"] == 0 and nobody["recent"] == [] == nobody["favourite_flows"]


@pytest.mark.parametrize("path", ["/api/stats", "/api/stats/users/ann", "/api/stats/health"])
@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "1e9", "day", "8785"])
async def test_bad_hours_are_named(path: str, hours: str) -> None:
    async with front_door() as door:
        error = (await ask(door, f"{path}?hours={hours}", 400))["error"]
        assert error["code"] == "invalid_request" and error["param"] == "hours"
        assert repr(hours) in error["message"]


@pytest.mark.parametrize("path", ["/api/stats", "/api/stats/users/ann", "/api/stats/health"])
async def test_unknown_parameters_and_missing_keys_are_refused(path: str) -> None:
    async with front_door() as door:
        assert (await ask(door, f"{path}?hour=1", 400))["error"]["param"] == "hour"
        assert (await door.client.get(path, headers={"x-api-key": "wrong"})).status_code == 401


async def test_health_has_all_its_parts() -> None:
    async with front_door() as door:
        await fill(door)
        shown = await ask(door, "/api/stats/health")
        assert set(shown["parts"]) == {"success", "store", "replicas", "latency", "queue", "breakers"}
        assert shown["parts"]["success"]["score"] == pytest.approx(2 / 3)
        assert shown["parts"]["replicas"]["value"] == {"ready": 1, "all": 2}
        assert shown["score"] == pytest.approx(0.3 * 2 / 3 + 0.2 + 0.2 * 0.5 + 0.3)


async def test_health_without_a_store_or_a_controller_still_answers() -> None:
    async with front_door() as door:
        door.faults.down = StoreError("the database is away", retry_after_s=1.0)
        shown = await ask(door, "/api/stats/health")
        assert set(shown["parts"]) == {"store", "replicas", "breakers"}
        assert shown["parts"]["store"]["score"] == 0.0 and shown["score"] == pytest.approx(0.2 / 0.5)
        door.cluster.error = CapacityError("Serve's controller does not answer")
        assert set((await ask(door, "/api/stats/health"))["parts"]) == {"store", "breakers"}


async def test_figures_need_the_store() -> None:
    async with front_door() as door:
        door.faults.down = StoreError("the database is away", retry_after_s=1.0)
        for path in ("/api/stats", "/api/stats/users/ann"):
            assert (await ask(door, path, 503))["error"]["code"] == "store_unavailable"


async def test_open_breakers_take_their_share() -> None:
    async with front_door() as door:
        breakers = [{"key": "a", "state": "open"}, {"key": "b", "state": "closed"}]
        door.gateway.snapshot = lambda: {"breakers": breakers}  # type: ignore[method-assign]
        shown = await ask(door, "/api/stats/health?hours=2")
        assert shown["parts"]["breakers"]["value"] == {"all": 2, "open": 1, "half_open": 0}
        assert shown["parts"]["breakers"]["score"] == 0.5
