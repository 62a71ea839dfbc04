"""`parley models`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.cli.command import Command, command
from serve_app.cli.options import AsJson
from serve_app.cli.table import show_table
from serve_app.lifecycle.find_runtime import find_runtime

if TYPE_CHECKING:
    from serve_app.client.catalogue import ModelList


def models(as_json: AsJson = False) -> None:
    """List the registered models; with a running runtime also their state."""
    with command(as_json) as cmd:
        listed = _from_runtime(cmd) if find_runtime(cmd.home).condition == "running" else _from_files(cmd)
        if as_json:
            cmd.output.json(listed.model_dump(mode="json", exclude_unset=True))
            return
        by_model: dict[str, list[str]] = {}
        for tier, key in listed.tiers.items():
            by_model.setdefault(key, []).append(tier)
        rows = [
            (m.key, m.engine, m.provider, m.state, ", ".join(by_model.get(m.key, [])), m.reason or "")
            for m in listed.models
        ]
        show_table(cmd.output, ("MODEL", "ENGINE", "PROVIDER", "STATE", "TIERS", ""), rows)


def _from_runtime(cmd: Command) -> ModelList:
    with cmd.client() as client:
        return client.models()


def _from_files(cmd: Command) -> ModelList:
    """The same without a runtime: nothing is loaded, so a local model's state says just that."""
    from registries.loader import load_catalog
    from serve_app.client.catalogue import ModelList

    catalog = load_catalog(cmd.settings.runtime_config())
    entries = []
    for spec in sorted(catalog.models, key=lambda m: m.key):
        state = "disabled" if not spec.enabled else "not_loaded" if spec.is_local else "remote"
        entries.append(spec.model_dump(mode="json") | {"state": state, "reason": None})
    return ModelList.model_validate({"models": entries, "tiers": dict(catalog.tiers)})
