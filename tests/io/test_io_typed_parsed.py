"""D3.3: what the clients of openai and anthropic parse, and what their streams end with, is kept.

The clients are the real ones; only their transport is not.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from anthropic.types import Message, ParsedMessage
from openai.types.chat import ChatCompletion, ParsedChatCompletion
from openai.types.responses import ParsedResponse, Response

from kassette_io import Context, MemoryStorage, Success, ValueRefusedError, workflow
from tests.io.keeping import every_way
from tests.io.stories import RUN

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),  # of the SDKs' own parsers
]


def http_of(sdk: Any) -> Any:
    """Return the HTTP library that an SDK is built on; they are about to change it."""
    packages = [each.__module__.partition(".")[0] for each in sdk.DefaultHttpxClient.__mro__]
    return importlib.import_module(next(each for each in packages if each.startswith("httpx")))


class Out(pydantic.BaseModel):
    a: int
    due: dt.date
    raw: bytes = b"x"


class Tool(pydantic.BaseModel):
    city: str


OUT = Out(a=1, due=dt.date(2026, 7, 1))
TEXT = '{"a": 1, "due": "2026-07-01"}'
PLAIN = {"a": 1, "due": "2026-07-01", "raw": "x"}
CALL = {
    "id": "c",
    "type": "function",
    "function": {"name": "Tool", "arguments": '{"city": "Rome"}'},
}
COMPLETION: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": TEXT,
                "tool_calls": [CALL],
                "a_new_field": {"b": [1]},
            },
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    "service_tier": "a new tier",
}
RESPONSE: dict[str, Any] = {
    "id": "r",
    "created_at": 1.0,
    "model": "m",
    "object": "response",
    "status": "a new status",
    "output": [
        {"type": "reasoning", "id": "q", "summary": []},
        {"type": "a new item", "id": "n", "x": 1},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": TEXT, "annotations": []}],
        },
        {"type": "function_call", "call_id": "c", "name": "Tool", "arguments": "{}"},
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "c",
    "content": [
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "text", "text": TEXT},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        {"type": "a new block", "x": 1},
    ],
    "stop_reason": "a new reason",
    "usage": {"input_tokens": 1, "output_tokens": 2},
}
HEADERS = {"x-request-id": "req", "request-id": "req"}


def client(kind: Any, body: Any) -> Any:
    """Return a client whose provider answers everything with ``body``: an object, or a stream."""

    http = http_of(anthropic if kind is anthropic.Anthropic else openai)

    def answer(request: Any) -> Any:
        if isinstance(body, str):
            return http.Response(
                200, text=body, headers={**HEADERS, "content-type": "text/event-stream"}
            )
        return http.Response(200, json=body, headers=HEADERS)

    transport = http.MockTransport(answer)
    return kind(api_key="k", max_retries=0, http_client=http.Client(transport=transport))


def streamed(events: list[Any], *, named: bool) -> str:
    return "".join(
        (f"event: {each['type']}\n" if named else "") + f"data: {json.dumps(each)}\n\n"
        for each in events
    )


def parsed_completion() -> Any:
    return client(openai.OpenAI, COMPLETION).chat.completions.parse(
        model="m", messages=[], response_format=Out, tools=[openai.pydantic_function_tool(Tool)]
    )


def streamed_completion() -> Any:
    choice = {"index": 0, "delta": {"role": "assistant", "content": TEXT}, "finish_reason": None}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        chunk | {"choices": [choice]},
        chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    body = streamed(chunks, named=False) + "data: [DONE]\n\n"
    with client(openai.OpenAI, body).chat.completions.stream(
        model="m", messages=[], response_format=Out
    ) as stream:
        return stream.get_final_completion()


def parsed_response() -> Any:
    return client(openai.OpenAI, RESPONSE).responses.parse(model="m", input="x", text_format=Out)


def parsed_message() -> Any:
    return client(anthropic.Anthropic, MESSAGE).messages.parse(
        model="c", max_tokens=1, messages=[], output_format=Out
    )


def streamed_message() -> Any:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    start = MESSAGE | {"content": [], "stop_reason": None, "stop_sequence": None}
    events = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": TEXT},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": block},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'},
        },
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    with client(anthropic.Anthropic, streamed(events, named=True)).messages.stream(
        model="c", max_tokens=1, messages=[]
    ) as stream:
        return stream.get_final_message()


def of_completion(answer: Any) -> Any:
    return answer.choices[0].message.parsed


def of_response(answer: Any) -> Any:
    return answer.output[2].content[0].parsed


def of_message(answer: Any) -> Any:
    return answer.content[1].parsed_output


Make = Callable[..., Any]
PARSED: dict[str, tuple[Make, Make, Any, Any]] = {
    "a completion": (parsed_completion, of_completion, ParsedChatCompletion, ChatCompletion),
    "a streamed completion": (
        streamed_completion,
        of_completion,
        ParsedChatCompletion,
        ChatCompletion,
    ),
    "a response": (parsed_response, of_response, ParsedResponse, Response),
    "a message": (parsed_message, of_message, ParsedMessage, Message),
}


def content(answer: Any) -> Any:
    """Return all that an answer holds, as plain data; not kassette's own way to look at it."""
    if isinstance(answer, pydantic.BaseModel):
        held = {**answer.__dict__, **(answer.__pydantic_extra__ or {})}
        return {name: content(each) for name, each in held.items() if each is not None}
    if isinstance(answer, list):
        return [content(each) for each in answer]
    return answer.isoformat() if isinstance(answer, dt.date) else answer


@pytest.mark.parametrize(("make", "part", "generic", "base"), PARSED.values(), ids=PARSED)
async def test_d3_3_a_parsed_answer_comes_back_with_what_was_parsed(
    make: Make, part: Make, generic: Any, base: Any
) -> None:
    """If it fails, a call that the SDK's own parser has answered is paid for at every start."""
    answer = make()
    assert part(answer) == OUT
    seen, _ = await every_way(generic[Out], answer)
    for each in seen:
        assert type(each) is generic[Out]
        assert type(part(each)) is Out
        assert part(each) == OUT
        assert content(each) == content(answer)


@pytest.mark.parametrize(("make", "part", "generic", "base"), PARSED.values(), ids=PARSED)
async def test_d3_3_where_the_type_does_not_say_what_was_parsed_is_its_json(
    make: Make, part: Make, generic: Any, base: Any
) -> None:
    """If it fails, an answer is thrown away because its declared type is less exact than it."""
    answer = make()
    for declared in (generic, generic[Any], type(answer), base):
        seen, _ = await every_way(declared, answer)
        for each in seen:
            assert type(each) is declared
            assert part(each) == PLAIN
            assert json.loads(json.dumps(content(each), default=bytes.decode)) == json.loads(
                json.dumps(content(answer), default=bytes.decode)
            )
            assert getattr(each, "_request_id", None) == getattr(answer, "_request_id", None)


@pytest.mark.parametrize("declared", [ParsedMessage, ParsedMessage[None], Message])
async def test_d3_3_what_a_stream_of_messages_ends_with_is_kept(declared: Any) -> None:
    """If it fails, whoever streams pays for his answers at every start."""
    answer = streamed_message()
    seen, _ = await every_way(declared, answer)
    for each in seen:
        assert type(each) is declared
        assert each.content[1].input == {"a": 1}
        assert content(each) == content(answer)


async def test_d3_3_what_the_client_hangs_on_an_answer_is_kept() -> None:
    """If it fails, an SDK that hangs one more id on its answers makes all of them refused."""
    answer = client(anthropic.Anthropic, MESSAGE).messages.create(
        model="c", max_tokens=1, messages=[]
    )
    answer._request_id = "req"
    answer._a_new_id = {"id": 1}
    answer._connection = object()
    seen, journaled = await every_way(Message, answer)
    assert all(each._request_id == "req" and each._a_new_id == {"id": 1} for each in seen)
    assert not any(hasattr(each, "_connection") for each in seen)
    assert journaled["_request_id"] == "req"


@dataclasses.dataclass
class Turn:
    answers: list[ParsedChatCompletion[Out]]
    last: Message | None = None


class Held(pydantic.BaseModel):
    answer: ChatCompletion
    parsed: ParsedChatCompletion[Out]
    others: dict[str, list[Message]] = {}


class Session(pydantic.BaseModel):
    held: list[Held]


async def test_d3_3_answers_of_the_clients_are_kept_wherever_they_are() -> None:
    """If it fails, an answer is safe alone, and lost in what a workflow makes of it."""
    parsed, message = parsed_completion(), parsed_message()
    seen, _ = await every_way(Turn, Turn([parsed], message))
    for each in seen:
        assert of_completion(each.answers[0]) == OUT
        assert content(each.answers[0]) == content(parsed)
        assert of_message(each.last)["due"] == "2026-07-01"
    plain = client(openai.OpenAI, COMPLETION).chat.completions.create(model="m", messages=[])
    held = Held.model_construct(answer=plain, parsed=parsed, others={"a": [message]})
    seen, _ = await every_way(Session, Session.model_construct(held=[held]))
    for each in seen:
        assert content(each.held[0].answer) == content(plain)
        assert content(each.held[0].parsed) == content(parsed)
        assert each.held[0].answer._request_id == "req"
        assert of_message(each.held[0].others["a"][0])["due"] == "2026-07-01"


async def test_d3_3_arguments_that_the_sdk_has_parsed_are_their_json() -> None:
    """If it fails, the parsed arguments of a tool call make the answer around them refused."""
    answer = parsed_completion()
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == Tool(city="Rome")
    seen, _ = await every_way(ParsedChatCompletion[Out], answer)
    for each in seen:
        function = each.choices[0].message.tool_calls[0].function
        assert function.parsed_arguments == {"city": "Rome"}


class Picky(pydantic.BaseModel):
    a: int
    due: str = pydantic.Field(exclude=True)


async def test_d3_3_what_was_parsed_and_would_not_come_back_is_refused_by_path() -> None:
    """If it fails, a part of what was parsed is lost in silence."""
    answer = client(openai.OpenAI, COMPLETION).chat.completions.parse(
        model="m", messages=[], response_format=Picky
    )
    for declared in (ParsedChatCompletion[Picky], ParsedChatCompletion[Out], ChatCompletion):
        with pytest.raises(ValueRefusedError, match=r"\.choices\[0\]\.message\.parsed"):
            await every_way(declared, answer)


async def test_d3_3_a_parsed_answer_is_paid_for_once() -> None:
    """If it fails, every start of the run makes the call again."""
    storage, paid = MemoryStorage(), []

    @workflow(storage=storage)
    async def flow(ctx: Context) -> Any:
        def ask() -> Any:
            paid.append(1)
            return parsed_completion()

        answer = await ctx.step("ask", ask, result_type=ParsedChatCompletion[Out])
        await ctx.suspend("go")
        return of_completion(answer).a

    await flow.start(run_id=RUN)
    assert await flow.resume(RUN, "go", True) == Success(1, RUN)
    assert len(paid) == 1
