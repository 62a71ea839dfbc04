"""/metrics: every living node's Ray agent, read at once and added up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import ray

from actors.telemetry.exposition import merged_page
from registries.contracts.config import RuntimeConfig

SCRAPE_TIMEOUT_S = 6.0
"""A node that takes longer is shown as failed; the page of the others waits no longer. Less than the 8 s of
deploy/prometheus.yml, and twice what an agent on full cores seems to have missed once."""


async def metrics_page(config: RuntimeConfig) -> str:
    """The cluster's page. Never raises for a node that does not answer: ``metrics_scrape_failed`` says so."""
    nodes = agents_of(await asyncio.to_thread(_nodes))
    timeout = aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(scrape(session, url) for url in nodes.values()))
    pages = {node: text for node, text in zip(nodes, texts, strict=True) if text is not None}
    return merged_page(pages, [node for node in nodes if node not in pages])


def agents_of(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Living nodes by name, with their agent's URL. Two nodes of one machine are told apart by their port."""
    alive = [n for n in nodes if n["Alive"] and n.get("MetricsExportPort")]
    addresses = [str(n["NodeManagerAddress"]) for n in alive]
    agents = {}
    for address, node in zip(addresses, alive, strict=True):
        place = f"{address}:{node['MetricsExportPort']}"
        agents[place if addresses.count(address) > 1 else address] = f"http://{place}/metrics"
    return agents


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


async def scrape(session: aiohttp.ClientSession, url: str) -> str | None:
    """The agent's page, or None."""
    try:
        async with session.get(url) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return None
