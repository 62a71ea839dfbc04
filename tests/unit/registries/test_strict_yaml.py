"""YAML is read strictly, and what is wrong with it is said with its line."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from registries.strict_yaml import StrictYamlError, parse_strict_yaml


def problems_of(text: str) -> list[str]:
    with pytest.raises(StrictYamlError) as caught:
        parse_strict_yaml(text)
    return caught.value.problems


def test_every_duplicate_key_is_named_with_its_line() -> None:
    problems = problems_of("a: 1\nb: 2\na: 3\nnested:\n  c: 1\n  c: 2\n")
    assert sorted(problems) == ["line 3: key 'a' is given twice", "line 6: key 'c' is given twice"]


def test_corrupt_text_names_line_and_column() -> None:
    (problem,) = problems_of("models:\n  - key: [1, 2\n")
    assert problem.startswith("line 3, column 1: not valid YAML")


def test_aliases_are_refused() -> None:
    (problem,) = problems_of("a: &x [1]\nb: *x\n")
    assert "line 2" in problem
    assert "aliases" in problem


def test_python_objects_are_refused() -> None:
    (problem,) = problems_of("a: !!python/object/apply:os.system ['true']\n")
    assert "not valid YAML" in problem


def test_nesting_without_end_is_an_error_and_no_crash() -> None:
    assert problems_of("[" * 5000)


def test_an_unhashable_key_is_an_error() -> None:
    assert problems_of("? [1, 2]\n: 3\n")


def test_empty_text_is_none() -> None:
    assert parse_strict_yaml("") is None


def test_two_documents_are_refused() -> None:
    assert "not valid YAML" in problems_of("a: 1\n---\nb: 2\n")[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_is_dumped_comes_back(value: object) -> None:
    assert parse_strict_yaml(yaml.dump(value, Dumper=_NoAliases)) == value


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True
