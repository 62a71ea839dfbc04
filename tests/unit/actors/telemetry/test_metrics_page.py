from __future__ import annotations

import aiohttp
from aiohttp import web

from actors.telemetry.metrics_page import agents_of, scrape


def node(address: str, port: int, alive: bool = True) -> dict[str, object]:
    return {"NodeManagerAddress": address, "MetricsExportPort": port, "Alive": alive}


def test_living_nodes_have_names_that_differ() -> None:
    nodes = [node("10.0.0.1", 1), node("10.0.0.2", 2), node("10.0.0.2", 3), node("10.0.0.3", 4, alive=False)]
    assert agents_of(nodes) == {
        "10.0.0.1": "http://10.0.0.1:1/metrics",
        "10.0.0.2:2": "http://10.0.0.2:2/metrics",
        "10.0.0.2:3": "http://10.0.0.2:3/metrics",
    }


async def test_a_node_that_does_not_answer_well_is_none() -> None:
    async def good(_: web.Request) -> web.Response:
        return web.Response(text="x 1")

    async def bad(_: web.Request) -> web.Response:
        return web.Response(status=500)

    application = web.Application()
    application.router.add_get("/good", good)
    application.router.add_get("/bad", bad)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        assert await scrape(session, f"http://127.0.0.1:{port}/good") == "x 1"
        assert await scrape(session, f"http://127.0.0.1:{port}/bad") is None
    await runner.cleanup()
    async with aiohttp.ClientSession() as session:
        assert await scrape(session, f"http://127.0.0.1:{port}/good") is None
