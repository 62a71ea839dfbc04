"""docs/api.md names every route, and says exactly what a row of a list has."""

from __future__ import annotations

import re
from pathlib import Path

from actors.stores.records import RunFilter
from actors.stores.run_queries import list_runs
from tests.unit.actors.stores.plain_transaction import PlainTransaction, put_run
from tests.unit.serve_app.front_door import front_door

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text(encoding="utf-8")


async def test_the_table_of_routes_has_every_route() -> None:
    async with front_door() as door:
        paths = (await door.client.get("/openapi.json")).json()["paths"]
    table = PAGE.split("## Routes\n", 1)[1].split("\n\n", 1)[0]
    named = set(re.findall(r"`(?:[A-Z]+ )?(/[^` ]*|…/\w+)`", table))
    missing = {path for path in paths if path not in named and f"…/{path.rsplit('/', 1)[1]}" not in named}
    assert len(paths) >= 15 and not missing


def test_a_row_has_the_fields_that_the_page_names() -> None:
    tx = PlainTransaction()
    put_run(tx, "r1")
    (row,) = list_runs(tx, "default", RunFilter())
    told = PAGE.split("A row has, of the fields below, ", 1)[1].split("characters.", 1)[0]
    plain = re.split(r",\s*", told.split("`", 2)[1])
    shortened = {"request", "result", "prompt", "answer"}
    assert set(plain) == row.keys() - shortened and all(f"`{name}`" in told for name in shortened)
