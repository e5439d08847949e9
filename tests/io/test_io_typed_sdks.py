"""D3.2 and D3.3: what openai, anthropic and google-genai take and give is kept as it is."""

from __future__ import annotations

import dataclasses
import datetime as dt
import typing as t
import warnings
from typing import Any

import anthropic.types as claude
import pydantic
import pytest
from anthropic.types import ContentBlock, Message, MessageParam, ToolParam
from google.genai import types as gemini
from openai.types import CompletionUsage, CreateEmbeddingResponse
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)
from openai.types.responses import Response, ResponseInputItemParam, ResponseOutputItem

from kassette_io import (
    Context,
    Failed,
    MemoryStorage,
    Success,
    UsageError,
    ValueRefusedError,
    workflow,
)
from tests.io.keeping import assert_kept, every_way
from tests.io.stories import RUN, journal_types

pytestmark = pytest.mark.anyio

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
CHAT: list[Any] = [
    {"role": "developer", "content": "d"},
    {"role": "system", "content": [{"type": "text", "text": "hello"}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "hello"},
            {
                "type": "image_url",
                "image_url": {"url": "data:image/png;base64,eA==", "detail": "low"},
            },
            {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
            {"type": "file", "file": {"file_id": "f"}},
        ],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "audio": {"id": "a"}},
    {"role": "user", "content": "äöü\u2028", "name": "ann"},
]
ITEMS: list[Any] = [
    {"role": "user", "content": "hi"},
    {
        "role": "user",
        "type": "message",
        "content": [
            {"type": "input_text", "text": "x"},
            {"type": "input_image", "detail": "auto", "image_url": "https://example.com/x.png"},
            {"type": "input_file", "file_id": "f"},
        ],
    },
    {
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "id": "fc",
        "status": "completed",
    },
    {"type": "function_call_output", "call_id": "c", "output": "42"},
    {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "s"}]},
    {
        "type": "message",
        "role": "assistant",
        "id": "msg",
        "status": "completed",
        "content": [{"type": "output_text", "text": "ok", "annotations": []}],
    },
    {"type": "item_reference", "id": "x"},
]
MESSAGES: list[Any] = [
    {"role": "user", "content": "hi"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "eA=="},
            },
            {"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "d"},
            },
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "redacted_thinking", "data": "zz"},
            {"type": "text", "text": "x"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, None]}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "is_error": False,
                "content": [{"type": "text", "text": "r"}],
            }
        ],
    },
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
GIVEN: dict[str, tuple[Any, Any]] = {
    "openai, chat": (list[ChatCompletionMessageParam], CHAT),
    "openai, chat, as they say it": (t.Iterable[ChatCompletionMessageParam], CHAT),
    "openai, responses": (list[ResponseInputItemParam], ITEMS),
    "openai, text or items": (str | list[ResponseInputItemParam], ITEMS),
    "openai, tools": (
        list[ChatCompletionToolParam],
        [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    ),
    "anthropic": (list[MessageParam], MESSAGES),
    "anthropic, by name": (dict[str, list[MessageParam]], {"a": MESSAGES}),
    "anthropic, tools": (list[ToolParam], [{"name": "f", "input_schema": SCHEMA}]),
    "google": (list[gemini.ContentDict], [{"role": "user", "parts": [{"text": "x"}]}]),
}


@pytest.mark.parametrize(("declared", "value"), GIVEN.values(), ids=GIVEN)
async def test_d3_2_message_lists_come_back_as_given(declared: Any, value: Any) -> None:
    """If it fails, the content of a conversation is lost in the journal itself."""
    assert await assert_kept(declared, value) == value


MISFITS: dict[str, tuple[Any, Any, str]] = {
    "a role": (list[ChatCompletionMessageParam], [{"role": "robot", "content": ""}], "[0]['role']"),
    "a key": (
        list[ChatCompletionMessageParam],
        [CHAT[0], {"role": "user", "content": "", "x": 1}],
        "[1] has the key 'x'",
    ),
    "a missing key": (
        list[ChatCompletionMessageParam],
        [{"role": "tool", "content": ""}],
        "[0] lacks 'tool_call_id'",
    ),
    "a generator": (
        list[ChatCompletionMessageParam],
        [{"role": "user", "content": iter(())}],
        "[0]['content'] is a tuple_iterator, which can be read only once",
    ),
    "an item": (list[ResponseInputItemParam], [{"type": "function_cal"}], "[0]"),
    "a block": (
        list[MessageParam],
        [{"role": "user", "content": [{"type": "txt"}]}],
        "[0]['content'][0]",
    ),
    "a key of a block": (
        list[MessageParam],
        [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}]}],
        "[0]['content'][0] has the key 'x'",
    ),
}


@pytest.mark.parametrize(("declared", "value", "where"), MISFITS.values(), ids=MISFITS)
async def test_d3_2_a_message_that_is_none_is_refused(
    declared: Any, value: Any, where: str
) -> None:
    """If it fails, a mistyped message is found by the provider, after it was journaled."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(declared, value)
    assert where in str(caught.value), str(caught.value)


COMPLETION: dict[str, Any] = {
    "id": "x",
    "choices": [
        {
            "index": 0,
            "finish_reason": "a new reason",
            "message": {
                "role": "assistant",
                "content": "hi",
                "reasoning": {"steps": [1]},
                "tool_calls": [CALL, {"id": "z", "type": "a new kind", "kind": {"x": 1}}],
            },
        }
    ],
    "created": 1,
    "model": "m",
    "object": "chat.completion",
    "service_tier": "a new tier",
    "usage": {"prompt_tokens": 1, "cost": 0.5},
    "system_fingerprint": None,
    "provider": "p",
}
MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "c",
    "content": [
        {"type": "text", "text": "x", "citations": None},
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
        {"type": "a new block", "x": 1},
    ],
    "stop_reason": "a new reason",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "a_new_counter": {"a": 1}},
}
RESPONSE: dict[str, Any] = {
    "id": "r",
    "object": "response",
    "created_at": 1.5,
    "model": "g",
    "status": "a new status",
    "output": [
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "a", "annotations": []}],
        },
        {"type": "a new call", "id": "x"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "reasoning", "id": "rs", "summary": []},
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {"input_tokens": 3},
    "service_tier": "a new tier",
}
BODIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a completion": (ChatCompletion, COMPLETION),
    "a message": (Message, MESSAGE),
    "a response": (Response, RESPONSE),
    "a chunk": (
        ChatCompletionChunk,
        {"id": "a", "choices": [{"delta": {"content": "x"}, "index": 0}]},
    ),
    "embeddings": (
        CreateEmbeddingResponse,
        {"data": [{"embedding": [0.5, 1e-9], "index": 0}], "model": "m"},
    ),
    "no counters": (CompletionUsage, {}),
    "one counter": (CompletionUsage, {"total_tokens": 7}),
}


def completion() -> ChatCompletion:
    return ChatCompletion.construct(**COMPLETION)


def message() -> Message:
    return Message.construct(**MESSAGE)


@pytest.mark.parametrize(("declared", "body"), BODIES.values(), ids=BODIES)
async def test_d3_3_an_answer_is_journaled_as_received_and_built_as_its_sdk_does(
    declared: Any, body: dict[str, Any]
) -> None:
    """If it fails, a provider's new value fails a step whose call was paid for, or is lost."""
    answer = declared.construct(**body)
    assert await assert_kept(declared, answer) == body
    seen, _ = await every_way(declared, answer)
    for each in seen:
        assert each.to_dict(warnings=False) == answer.to_dict(warnings=False)
        assert each.model_fields_set == answer.model_fields_set


async def test_d3_3_an_answer_may_be_given_as_its_body() -> None:
    """If it fails, whoever calls a provider over plain HTTP has to build the models himself."""
    seen, journaled = await every_way(ChatCompletion, COMPLETION)
    assert all(each == completion() for each in seen)
    assert journaled == COMPLETION


async def test_d3_3_the_id_of_the_request_is_kept() -> None:
    """If it fails, nobody can ask the provider about a recorded answer."""
    for answer in (completion(), message()):
        for request_id in ("req_1", None):
            answer._request_id = request_id
            seen, _ = await every_way(type(answer), answer)
            for each in seen:
                assert each._request_id == request_id
                assert each.to_dict(warnings=False) == answer.to_dict(warnings=False)


@dataclasses.dataclass
class Turn:
    number: int
    answer: ChatCompletion
    messages: list[Message]
    history: list[ChatCompletionMessageParam]
    picture: bytes = b""


class Held(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    number: int = pydantic.Field(alias="no")
    answer: ChatCompletion
    history: list[ChatCompletionMessageParam] = []
    at: dt.datetime | None = None


class Session(pydantic.BaseModel):
    turns: list[Held] = pydantic.Field(max_length=3)
    by_name: dict[str, Message | None] = {}


def held() -> Held:
    return Held.model_validate({"no": 1, "answer": completion(), "history": CHAT[:1], "more": [1]})


NESTED: dict[str, tuple[Any, Any]] = {
    "a list": (list[ChatCompletion], [completion(), completion()]),
    "a tuple": (tuple[Message, float], (message(), 1)),
    "an option": (t.Optional[ChatCompletion], completion()),  # noqa: UP045
    "by name": (dict[str, Message], {"a": message()}),
    "blocks": (list[ContentBlock], message().content),
    "output items": (list[ResponseOutputItem], Response.construct(**RESPONSE).output),
    "one of two SDKs": (ChatCompletion | Message, message()),
    "the other of them": (ChatCompletion | Message, completion()),
    "one of one SDK": (ChatCompletion | Response | None, Response.construct(**RESPONSE)),
    "an answer or an error": (ChatCompletion | Turn | str, completion()),
    "a dataclass": (Turn, Turn(1, completion(), [message()], CHAT, b"\x89")),
    "a model": (Held, held()),
    "models in a model": (Session, Session(turns=[held()], by_name={"a": message(), "b": None})),
    "an answer without surprises": (
        ChatCompletion,
        ChatCompletion.model_validate(
            COMPLETION
            | {"choices": [], "service_tier": "auto", "usage": None, "object": "chat.completion"}
        ),
    ),
}


@pytest.mark.parametrize(("declared", "value"), NESTED.values(), ids=NESTED)
async def test_d3_3_answers_are_kept_wherever_they_are(declared: Any, value: Any) -> None:
    """If it fails, an answer is safe alone, and lost inside of what a tool made of it."""
    await assert_kept(declared, value)


async def test_d3_2_what_pydantic_has_made_unreadable_is_refused() -> None:
    """If it fails, a model whose validation makes one-shot iterators of lists is journaled empty."""
    value = Held.model_validate({"no": 1, "answer": completion(), "history": CHAT[1:2]})
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(Held, value)
    assert ".history[0]['content'] is a" in str(caught.value)
    assert "can be read only once" in str(caught.value)


def gemini_answer() -> gemini.GenerateContentResponse:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the SDK, about the reason that it does not know
        return gemini.GenerateContentResponse.model_validate(
            {
                "candidates": [
                    {
                        "finishReason": "A_NEW_REASON",
                        "content": {
                            "role": "model",
                            "parts": [
                                {"text": "hi", "thoughtSignature": "iVBORw=="},
                                {"functionCall": {"name": "f", "args": {"a": 1}}},
                                {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
                            ],
                        },
                    }
                ],
                "usageMetadata": {"promptTokenCount": 1},
                "createTime": "2026-01-01T00:00:00.123456Z",
            }
        )


@pytest.mark.filterwarnings("ignore:A_NEW_REASON is not a valid")  # of older SDKs
async def test_d3_3_answers_of_google_are_journaled_as_received() -> None:
    """If it fails, a new finish reason or bytes fail a step, or defaults are invented for it."""
    answer = gemini_answer()
    seen, journaled = await every_way(gemini.GenerateContentResponse, answer)
    assert [each.model_dump() for each in seen] == [answer.model_dump()] * len(seen)
    assert [each.model_fields_set for each in seen] == [answer.model_fields_set] * len(seen)
    assert journaled["candidates"][0]["finishReason"] == "A_NEW_REASON"
    assert journaled["candidates"][0]["content"]["parts"][0] == {
        "text": "hi",
        "thoughtSignature": "iVBORw==",
    }
    assert journaled.keys() == {"candidates", "usageMetadata", "createTime"}
    assert seen[0].candidates[0].content.parts[2].inline_data.data == b"\x89PNG\r\n\x1a\n"


async def test_d3_3_an_answer_that_cannot_be_kept_names_its_part_and_leaves_the_run_open() -> None:
    """If it fails, nobody learns that the call was made, or mended code cannot go on."""
    storage = MemoryStorage()
    kept = completion()
    kept.choices[0].message.content = iter(["x"])  # type: ignore[assignment]

    @workflow(storage=storage)
    async def flow(ctx: Context) -> Any:
        return (await ctx.step("ask", lambda: kept, result_type=ChatCompletion)).id

    with pytest.raises(ValueRefusedError) as caught:
        await flow.start(run_id=RUN)
    assert ".choices[0].message.content" in str(caught.value)
    assert "step 'ask'" in str(caught.value)
    assert "function was called" in str(caught.value)
    assert await journal_types(storage) == ["start"]
    kept = completion()
    assert await flow.start(run_id=RUN) == Success("x", RUN)


class Plain(pydantic.BaseModel):
    tier: t.Literal["a"]


async def test_d3_3_a_model_that_validates_itself_is_not_built_unchecked() -> None:
    """If it fails, a model of one's own is rebuilt from what it would refuse."""
    with pytest.raises(UsageError):
        await every_way(Plain, Plain.model_construct(tier="b"))
    with pytest.raises(UsageError, match="no field of ChatCompletion"):
        await every_way(ChatCompletion, {"isOk": True})


async def test_d3_3_a_dict_for_a_message_is_never_taken_for_an_answer() -> None:
    """If it fails, a mistyped block of a message comes back as an object of the SDK."""
    declared = list[claude.TextBlockParam | claude.TextBlock]
    await assert_kept(declared, [{"type": "text", "text": "x"}])
    with pytest.raises(UsageError):
        await every_way(declared, [{"type": "txt", "text": "x"}])


async def test_d3_3_blocks_of_an_answer_in_a_history_come_back_as_the_dicts_that_say_the_same() -> (
    None
):
    """If it fails, the history that anthropic's documentation shows is refused after it was paid."""
    answer = message()
    history = [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer.content}]
    seen, journaled = await every_way(list[MessageParam], history)
    assert journaled == [history[0], {"role": "assistant", "content": MESSAGE["content"]}]
    for each in seen:
        blocks = each[1]["content"]
        assert blocks[:3] == MESSAGE["content"][:3]
        assert blocks[3].to_dict(warnings=False) == MESSAGE["content"][3]
    block = claude.TextBlock.construct(type="text", text="x")
    seen, _ = await every_way(list[claude.TextBlockParam | claude.TextBlock], [block, block])
    assert seen == [[{"type": "text", "text": "x"}] * 2] * len(seen)
    with pytest.raises(UsageError):  # nothing says that it is a block, or a dict
        await every_way(dict[str, Any], {"a": block})
    with pytest.raises(UsageError):
        await every_way(
            tuple[claude.TextBlockParam | claude.TextBlock, dt.date | Any], (block, block)
        )


async def test_d3_4_an_answer_recorded_as_another_type_is_no_failure_of_the_workflow() -> None:
    """If it fails, a deploy that names another SDK's type ends its runs."""
    storage = MemoryStorage()

    def flow(declared: Any) -> Any:
        async def body(ctx: Context) -> Any:
            await ctx.step("ask", lambda: {"isOk": True}, result_type=declared)
            return await ctx.suspend("go")

        return workflow(body, storage=storage)

    await flow(dict).start(run_id=RUN)
    with pytest.raises(ValueRefusedError, match="as journaled does not fit"):
        await flow(ChatCompletion).resume(RUN, "go", 1)
    assert not isinstance(await flow(dict).start(run_id=RUN), Failed)
