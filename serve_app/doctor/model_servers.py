"""Model servers that people run on their own machines: found by asking, suggested in one line."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

_PROBE_S = 0.4
_MAX_BYTES = 1_000_000
USUAL_PORTS: tuple[tuple[int, str], ...] = (
    (11434, "Ollama"),
    (1234, "LM Studio"),
    (8080, "llama.cpp"),
    (8000, "vLLM"),
)


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A server that speaks the OpenAI protocol on this machine, and what it serves."""

    name: str
    base_url: str
    models: tuple[str, ...]


def find_model_servers(
    ports: tuple[tuple[int, str], ...] = USUAL_PORTS, exclude_ports: frozenset[int] = frozenset()
) -> list[ModelServer]:
    """Ask the usual ports of this machine, all at once, for less than a second."""
    asked = [(port, name) for port, name in ports if port not in exclude_ports]
    if not asked:
        return []
    with ThreadPoolExecutor(max_workers=len(asked)) as pool:
        return [server for server in pool.map(_probe, asked) if server]


def _probe(where: tuple[int, str]) -> ModelServer | None:
    port, name = where
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PROBE_S)
    try:
        connection.request("GET", "/v1/models", headers={"accept": "application/json"})
        response = connection.getresponse()
        body = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    models = model_names(body) if response.status == 200 else None
    return ModelServer(name, f"http://127.0.0.1:{port}/v1", models) if models else None


def model_names(body: bytes) -> tuple[str, ...] | None:
    """Ids in an OpenAI-style list; None when it is something else."""
    try:
        entries = json.loads(body)["data"]
        return tuple(str(entry["id"]) for entry in entries)
    except (ValueError, TypeError, KeyError):
        return None


def suggestion(server: ModelServer) -> str:
    """The line that makes the runtime use it."""
    shown = ", ".join(server.models[:3]) + (" …" if len(server.models) > 3 else "")
    return (
        f"{server.name} answers on this machine ({shown}). To deliberate with it: make stop, then\n"
        f"  PARLEY_MODEL_URL={server.base_url} PARLEY_MODEL={server.models[0]} make run"
    )
