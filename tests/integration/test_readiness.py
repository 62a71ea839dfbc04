"""What failed to load says why, and holds nothing else back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from actors.readiness import Part, readiness_facts
from registries.specs import ModelSpec
from tests.polling import until
from tests.runtime_cluster import RunningCluster
from tests.scripted_models import scripted_model


@pytest.fixture
def deployed(driver: RunningCluster) -> Iterator[Any]:
    """Hands models to Serve as the runtime does; they are taken off again."""
    from ray import serve
    from ray.serve import RunTarget, run_many

    from actors.model_replica import build_model_app, model_app_name

    names: list[str] = []

    def deploy(entry: dict[str, Any]) -> Part:
        spec = ModelSpec.model_validate(entry)
        name = model_app_name(spec.key)
        names.append(name)
        run_many(
            [RunTarget(target=build_model_app(spec, driver.config), name=name, route_prefix=None)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        return Part(spec.key, name)

    yield deploy
    for name in names:
        serve.delete(name)


def facts_of(part: Part) -> dict[str, Any]:
    from ray import serve

    facts: dict[str, Any] = readiness_facts([part], serve.status().applications, {})["parts"][part.name]
    return facts


async def test_a_missing_folder_is_failed_with_its_name(deployed: Any, cluster: RunningCluster) -> None:
    part = deployed(scripted_model("lost", [], engine="transformers", location="/nowhere/lost-model"))
    await until(lambda: facts_of(part)["state"] == "failed", 60, every_s=0.3)
    reason = facts_of(part)["reason"]
    assert "/nowhere/lost-model" in reason and "Traceback" not in reason
    async with aiohttp.ClientSession(cluster.base_url) as session, session.get("/api/health") as answer:
        assert answer.status == 200


async def test_a_slow_model_is_loading_until_it_is_ready(deployed: Any) -> None:
    entry = scripted_model("late", [])
    entry["engine_options"]["load_time_s"] = 3.0
    part = deployed(entry)
    assert facts_of(part)["state"] == "loading"
    await until(lambda: facts_of(part)["state"] == "ready", 60, every_s=0.3)
