from __future__ import annotations

import pytest

from actors.stores.sql_text import ClockParameters, SqlDialect


def test_words_and_placeholders_are_the_dialect_s() -> None:
    dialect = SqlDialect({"now": "clock()", "for_update": "FOR UPDATE"}, "%s")
    sql = "SELECT {now} - ? FROM t WHERE a = ? {for_update}"
    assert dialect.render(sql) == "SELECT clock() - %s FROM t WHERE a = %s FOR UPDATE"
    assert dialect.render(sql) is dialect.render(sql)


def test_an_unknown_word_is_a_bug() -> None:
    with pytest.raises(KeyError, match="nwo"):
        SqlDialect({"now": "clock()"}, "?").render("SELECT {nwo}")


def test_clocks_take_their_places_among_the_parameters() -> None:
    texts = ClockParameters(SqlDialect({"now": "?", "lease_now": "?", "for_update": ""}, "?"))
    clocks = {"now": lambda: 1.5, "lease_now": lambda: 2.5}
    for _ in range(2):
        text, bound = texts.bind("SET a = ?, b = {now}, c = {lease_now} + ? {for_update}", ("x", 9), clocks)
        assert text == "SET a = ?, b = ?, c = ? + ? " and bound == ("x", 1.5, 2.5, 9)


def test_without_clocks_the_parameters_stay_as_they_are() -> None:
    parameters = ("x", 9)
    texts = ClockParameters(SqlDialect({}, "?"))
    assert texts.bind("VALUES (?, ?)", parameters, {"now": lambda: 1.5})[1] is parameters
