"""What a request may say, checked once at the edge."""

from __future__ import annotations

import pytest

from registries.contracts.generation import Attachment, GenerationRequest


@pytest.mark.parametrize("url", ["https://a.b/c.png", "http://a.b", "data:image/png;base64,aGk="])
def test_urls_that_a_provider_can_fetch(url: str) -> None:
    assert Attachment(type="image_url", url=url).url == url


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "a.png", "http://", "https:x", "http://[1"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Attachment(type="image_url", url=url)


def test_base64_may_come_in_lines_as_the_command_prints_it() -> None:
    assert Attachment(type="image", data="aGVs\nbG8=\n").data == "aGVsbG8="


@pytest.mark.parametrize("data", ["aaaaa", "aGk", "aG k=é", "a-_b", "data:image/png;base64,aGk="])
def test_what_is_no_base64_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        Attachment(type="image", data=data)


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
        {"type": "a kind that only some server knows", "more": 1},
    ],
)
def test_response_formats_are_passed_on_as_they_came(response_format: dict[str, object]) -> None:
    request = GenerationRequest(prompt="hi", response_format=response_format)
    assert request.response_format == response_format
