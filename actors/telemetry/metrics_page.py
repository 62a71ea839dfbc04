"""/metrics: every living node's Ray agent, read at once and added up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import ray

from actors.telemetry.exposition import merged_page
from registries.contracts.config import RuntimeConfig

SCRAPE_TIMEOUT_S = 3.0
"""A node that takes longer is shown as failed; the page of the others does not wait."""


async def metrics_page(config: RuntimeConfig) -> str:
    """The cluster's page. Never raises for a node that does not answer: ``metrics_scrape_failed`` says so."""
    nodes = await asyncio.to_thread(_agents)
    timeout = aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(_scrape(session, url) for url in nodes.values()))
    pages = {node: text for node, text in zip(nodes, texts, strict=True) if text is not None}
    return merged_page(pages, [node for node in nodes if node not in pages])


def _agents(nodes: Sequence[Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Node name → URL of its agent. Two nodes of one machine are told apart by their port."""
    alive = [
        n for n in (ray.nodes() if nodes is None else nodes) if n["Alive"] and n.get("MetricsExportPort")
    ]
    addresses = [n["NodeManagerAddress"] for n in alive]
    return {
        f"{a}:{n['MetricsExportPort']}"
        if addresses.count(a) > 1
        else a: f"http://{a}:{n['MetricsExportPort']}/metrics"
        for a, n in zip(addresses, alive, strict=True)
    }


async def _scrape(session: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with session.get(url) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return None
