"""Options: one message that names everything wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.evaluation.command_line import check_names, read_options
from registries.contracts.errors import ValidationError
from tests.unit.actors.evaluation.fake_runtime import catalog

NEEDED = ["--dataset", "d.jsonl", "--out", "out"]


def test_lists_come_by_comma_and_by_repetition() -> None:
    options = read_options(
        [
            *NEEDED,
            "--flow",
            "a, b",
            "--flow",
            "b,c",
            "--model",
            "m",
            "--votes",
            "3,matched",
            "--role",
            "creator=m",
        ]
    )
    assert options.flows == ("a", "b", "c")
    assert (options.votes, options.matched_votes) == ((3,), True)
    assert options.roles == {"creator": "m"}
    assert options.dataset == Path("d.jsonl")
    assert (options.concurrency, options.seed, options.limit, options.config) == (8, 0, None, None)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([], "--flow or --model: nothing to evaluate"),
        (["--flow", "f", "--votes", "3"], "--votes: needs --model"),
        (["--model", "m", "--votes", "matched"], "--votes matched: needs --flow"),
        (["--model", "m", "--votes", "0"], "--votes 0: a number from 1 to 101"),
        (["--model", "m", "--votes", "²"], "--votes ²"),
        (["--flow", "f", "--concurrency", "0"], "--concurrency 0: must lie between 1 and 1024"),
        (["--flow", "f", "--limit", "-1"], "--limit -1"),
        (["--flow", "f", "--vote-temperature", "nan"], "--vote-temperature nan"),
        (["--flow", "f", "--role", "creator"], "--role creator: must be ROLE=MODEL"),
        (["--flow", "f", "--max-tokens", "0", "--seed", "-1"], "--seed -1"),
    ],
)
def test_wrong_options_are_named(extra: list[str], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read_options([*NEEDED, *extra])
    assert words in caught.value.message


def test_missing_options_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_options([])
    assert caught.value.code == 2
    assert "--dataset" in capsys.readouterr().err


def test_role_models_must_exist_too() -> None:
    with pytest.raises(ValidationError, match="unknown model 'nobody'"):
        check_names(read_options([*NEEDED, "--flow", "plain", "--role", "creator=nobody"]), catalog())
    check_names(read_options([*NEEDED, "--flow", "plain", "--role", "creator=adder"]), catalog())
