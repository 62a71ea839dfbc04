from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.openai_protocol import Tally, chat_messages, parse_completion, parse_json, request_body
from actors.engines.sse import MAX_EVENT_BYTES, SseDecoder
from registries.contracts.engine import EngineCall
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import Attachment, Message


def call(**options: Any) -> EngineCall:
    messages = (Message(role="system", content="be brief"), Message(role="user", content="hello"))
    return EngineCall("r1", "gpt", messages, 10, **options)


def test_an_open_choice_is_left_out_of_the_body() -> None:
    body = request_body(call(), stream=False)
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "top_p"}


def test_everything_that_was_chosen_is_in_the_body() -> None:
    chosen = call(
        temperature=0.5, top_p=0.9, top_k=3, stop=("x",), seed=0, response_format={"type": "json_object"},
        tools=({"type": "function"},), metadata={"user": "anna", "tags": "a,b"},
    )  # fmt: skip
    body = request_body(chosen, stream=True, max_tokens_field="max_completion_tokens")
    assert body["max_completion_tokens"] == 10
    assert (body["top_k"], body["seed"], body["stop"], body["user"]) == (3, 0, ["x"], "anna")
    assert body["stream_options"] == {"include_usage": True}
    assert "max_tokens" not in body
    json.dumps(body)


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF89", "gif"), (b"RIFF", "webp"), (b"?", "png")],
)
def test_images_go_into_the_last_user_message(head: bytes, kind: str) -> None:
    data = base64.b64encode(head + b"0" * 20).decode()
    pictures = (
        Attachment(type="image", data=data),
        Attachment(type="image_url", url="https://example.org/a.png"),
    )
    content = chat_messages(call(attachments=pictures))[-1]["content"]
    assert content[0] == {"type": "text", "text": "hello"}
    assert content[1]["image_url"]["url"] == f"data:image/{kind};base64,{data}"
    assert content[2]["image_url"]["url"] == "https://example.org/a.png"


def answer(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], **fields}


def test_a_whole_answer() -> None:
    result = parse_completion(answer(usage={"prompt_tokens": 4, "completion_tokens": 1}), "p", "m", call())
    assert (result.text, result.finish_reason, result.prompt_tokens, result.completion_tokens) == (
        "hi",
        "stop",
        4,
        1,
    )
    assert not result.estimated


def test_counts_that_nobody_told_are_marked_as_estimated() -> None:
    result = parse_completion(answer(), "p", "m", call())
    assert result.estimated
    assert result.prompt_tokens > 0


@pytest.mark.parametrize(
    "body", [{}, {"choices": []}, {"choices": [{}]}, [], "text", None, {"choices": [{"message": None}]}]
)
def test_an_answer_without_a_choice_is_a_bad_response(body: Any) -> None:
    with pytest.raises(ProviderError) as caught:
        parse_completion(body, "p", "m", call())
    assert caught.value.fault is Fault.BAD_RESPONSE


def test_no_json_is_a_bad_response() -> None:
    with pytest.raises(ProviderError):
        parse_json(b"<html>", "p", "m")


def event(text: str | None = None, finish: str | None = None, **rest: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}], **rest}


def test_a_stream_is_tallied() -> None:
    tally = Tally(call())
    assert [tally.take(event(text), "p") for text in ("a", None, "b")] == ["a", "", "b"]
    tally.take(event(finish="length"), "p")
    tally.take({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}, "p")
    result = tally.result(0.1)
    assert (result.text, result.finish_reason, result.prompt_tokens, result.completion_tokens) == (
        "ab",
        "length",
        7,
        2,
    )


@pytest.mark.parametrize("reason", ["abort", "error", "who knows", 7])
def test_an_end_that_is_none_is_a_cut_answer(reason: Any) -> None:
    whole = {"choices": [{"message": {"content": "half an ans"}, "finish_reason": reason}]}
    for cut in (lambda: parse_completion(whole, "p", "m", call()), lambda: Tally(call()).take(event("x", reason), "p")):  # fmt: skip  # noqa: E501
        with pytest.raises(ProviderError, match="finish reason") as caught:
            cut()
        assert caught.value.fault is Fault.STREAM_CUT


def test_a_whole_answer_without_a_finish_reason_is_a_cut_one() -> None:
    for choice in ({"message": {"content": "half"}}, {"message": {"content": "half"}, "finish_reason": None}):
        with pytest.raises(ProviderError, match="finish reason None"):
            parse_completion({"choices": [choice]}, "p", "m", call())


@pytest.mark.parametrize(
    ("told", "finish"),
    [("STOP", "stop"), ("eos", "stop"), ("MAX_TOKENS", "length"), ("tool_use", "tool_calls")],
)
def test_other_words_for_the_same_ends(told: str, finish: str) -> None:
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": told}]}
    assert parse_completion(body, "p", "m", call()).finish_reason == finish


@pytest.mark.parametrize("bad", [{"error": {"message": "x"}}, {"no": "choices"}, [], 5])
def test_an_event_that_is_no_chunk_is_raised(bad: Any) -> None:
    with pytest.raises(ProviderError):
        Tally(call()).take(bad, "p")


@given(st.lists(st.text(alphabet=st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), min_size=1), max_size=6), st.integers(1, 7))  # fmt: skip  # noqa: E501
def test_sse_gives_the_same_events_however_the_bytes_are_cut(data: list[str], size: int) -> None:
    raw = b": comment\n\n" + b"".join(f"event: x\ndata: {item}\r\n\r\n".encode() for item in data)
    decoder = SseDecoder()
    events = [
        found for start in range(0, len(raw), size) for found in decoder.feed(raw[start : start + size])
    ]
    assert events + decoder.flush() == data


def test_sse_lines_of_one_event_are_joined_and_the_last_event_needs_no_empty_line() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\ndata: b\n\ndata: c") == ["a\nb"]
    assert decoder.flush() == ["c"]


def test_an_endless_sse_line_is_refused() -> None:
    with pytest.raises(ProviderError):
        SseDecoder().feed(b"data: " + b"x" * (MAX_EVENT_BYTES + 1))
