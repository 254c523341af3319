"""Points a vendor's own Python client at the scripted provider and checks that it reads what the script says.

usage: check.py openai|anthropic|google BASE_URL
Exit code 0: satisfied. 77: the client cannot be imported; the reason is printed.
"""

import sys


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


TEXT = "größer \U0001f98a, twice"
ADD = {"a": 2, "b": 3}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def openai_responses(client):
    import json

    import openai

    tools = [{"type": "function", "name": "add", "description": "sum", "parameters": SCHEMA, "strict": True}]

    with client.responses.stream(model="m", input="say text") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    same("".join(deltas), TEXT)
    same((final.output_text, final.status), (TEXT, "completed"))
    same((final.usage.input_tokens, final.usage.input_tokens_details.cached_tokens), (9, 4))
    same((final.usage.output_tokens, final.usage.output_tokens_details.reasoning_tokens), (7, 2))

    with client.responses.stream(model="m", input="use tools", tools=tools) as stream:
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    same([(call.name, json.loads(call.arguments)) for call in calls], [("add", ADD), ("add", {"a": 1, "b": 1})])
    reasoning = [item for item in final.output if item.type == "reasoning"]
    same([item.encrypted_content for item in reasoning], ["b3BhcXVl"])

    # What the client makes of the answer goes back to the server, with the results.
    history = [{"role": "user", "content": "use tools"}]
    history += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in final.output]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "5"} for call in calls]
    same(client.responses.create(model="m", input=history, tools=tools).output_text, "It is five.")

    same(client.responses.create(model="m", input="say text").output_text, TEXT)
    refused = client.responses.create(model="m", input="decline")
    same([part.refusal for item in refused.output for part in item.content], ["I will not."])
    cut = client.responses.create(model="m", input="too long")
    same((cut.status, cut.incomplete_details.reason), ("incomplete", "max_output_tokens"))
    for wanted, kind in [("be busy", openai.RateLimitError), ("no key", openai.AuthenticationError)]:
        try:
            client.responses.create(model="m", input=wanted)
        except kind as error:
            same(error.code, {"be busy": "rate_limit_exceeded", "no key": None}[wanted])
        else:
            raise AssertionError(wanted)


def openai_chat(client):
    import json

    import openai

    tools = [{"type": "function", "function": {"name": "add", "description": "sum", "parameters": SCHEMA}}]

    def ask(text):
        return [{"role": "user", "content": text}]

    chunks = list(
        client.chat.completions.create(
            model="m", messages=ask("say text"), stream=True, stream_options={"include_usage": True}
        )
    )
    same("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), TEXT)
    same((chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens), (9, 7))

    with client.chat.completions.stream(model="m", messages=ask("use tools"), tools=tools) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    same(final.choices[0].finish_reason, "tool_calls")
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    same(calls, [("add", ADD), ("add", {"a": 1, "b": 1})])

    history = ask("use tools") + [{
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": "{}"}}
            for call in message.tool_calls
        ],
    }]
    history += [{"role": "tool", "tool_call_id": call.id, "content": "5"} for call in message.tool_calls]
    whole = client.chat.completions.create(model="m", messages=history, tools=tools)
    same((whole.choices[0].message.content, whole.choices[0].finish_reason), ("It is five.", "stop"))
    same(client.chat.completions.create(model="m", messages=ask("decline")).choices[0].message.refusal, "I will not.")
    try:
        list(client.chat.completions.create(model="m", messages=ask("fail midway"), stream=True))
    except openai.APIError:
        pass
    else:
        raise AssertionError("an error within the stream was not seen")


def check_openai(base):
    import openai

    client = openai.OpenAI(base_url=f"{base}/v1", api_key="sk-test", max_retries=0)
    openai_responses(client)
    openai_chat(client)
    # The client's own retry obeys what the server says.
    patient = openai.OpenAI(base_url=f"{base}/v1", api_key="sk-test", max_retries=1)
    same(patient.responses.create(model="m", input="busy once").output_text, "Now it works.")


def check_anthropic(base):
    import anthropic

    client = anthropic.Anthropic(base_url=base, api_key="sk-test", max_retries=0)
    tools = [{"name": "add", "description": "sum", "input_schema": SCHEMA}]

    def ask(text):
        return {"model": "claude-opus-5", "max_tokens": 1000, "messages": [{"role": "user", "content": text}]}

    with client.messages.stream(**ask("say text")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    same((text, final.content[-1].text, final.stop_reason), (TEXT, TEXT, "end_turn"))
    usage = final.usage
    same((usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens), (5, 4, 7))

    with client.messages.stream(**ask("use tools"), tools=tools) as stream:
        final = stream.get_final_message()
    same(final.stop_reason, "tool_use")
    kinds = [block.type for block in final.content]
    same(kinds, ["thinking", "tool_use", "tool_use"])
    same((final.content[0].thinking, final.content[0].signature), ("need a sum", "b3BhcXVl"))
    calls = final.content[1:]
    same([(call.name, call.input) for call in calls], [("add", ADD), ("add", {"a": 1, "b": 1})])

    history = ask("use tools")
    history["messages"] += [
        {"role": "assistant", "content": final.content},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": "5"} for call in calls
        ]},
    ]
    whole = client.messages.create(**history, tools=tools)
    same((whole.content[-1].text, whole.stop_reason), ("It is five.", "end_turn"))
    same(client.messages.create(**ask("decline")).stop_reason, "refusal")
    same(client.messages.create(**ask("too long")).stop_reason, "max_tokens")
    counted = ask("say text")
    del counted["max_tokens"]
    assert client.messages.count_tokens(**counted).input_tokens > 0
    for wanted, kind in [("be busy", anthropic.RateLimitError), ("no key", anthropic.AuthenticationError)]:
        try:
            client.messages.create(**ask(wanted))
        except kind:
            pass
        else:
            raise AssertionError(wanted)
    try:
        with client.messages.stream(**ask("fail midway")) as stream:
            stream.get_final_message()
    except anthropic.APIError:
        pass
    else:
        raise AssertionError("an error within the stream was not seen")


def check_google(base):
    from google import genai
    from google.genai import errors, types

    client = genai.Client(api_key="sk-test", http_options={"base_url": base})
    declaration = types.FunctionDeclaration(name="add", description="sum", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declaration])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )

    chunks = list(client.models.generate_content_stream(model="gemini-3-pro", contents="say text"))
    same("".join(chunk.text or "" for chunk in chunks), TEXT)
    last = chunks[-1]
    same(last.candidates[0].finish_reason, types.FinishReason.STOP)
    usage = last.usage_metadata
    same((usage.prompt_token_count, usage.cached_content_token_count), (9, 4))
    same((usage.candidates_token_count, usage.thoughts_token_count), (5, 2))

    chunks = list(client.models.generate_content_stream(model="gemini-3-pro", contents="use tools", config=config))
    calls = [call for chunk in chunks for call in chunk.function_calls or []]
    same([(call.name, call.args) for call in calls], [("add", ADD), ("add", {"a": 1, "b": 1})])
    parts = [part for chunk in chunks for part in (chunk.candidates[0].content.parts or [])]
    same([part.thought_signature for part in parts if part.function_call], [b"opaque", None])

    contents = [
        types.Content(role="user", parts=[types.Part(text="use tools")]),
        types.Content(role="model", parts=[part for part in parts if part.function_call]),
        types.Content(role="user", parts=[
            types.Part.from_function_response(name="add", response={"output": "5"}) for _ in calls
        ]),
    ]
    same(client.models.generate_content(model="gemini-3-pro", contents=contents, config=config).text, "It is five.")
    blocked = client.models.generate_content(model="gemini-3-pro", contents="decline")
    same(blocked.prompt_feedback.block_reason, types.BlockedReason.SAFETY)
    cut = client.models.generate_content(model="gemini-3-pro", contents="too long")
    same(cut.candidates[0].finish_reason, types.FinishReason.MAX_TOKENS)
    assert client.models.count_tokens(model="gemini-3-pro", contents="say text").total_tokens > 0
    for wanted, code in [("be busy", 429), ("no key", 401)]:
        try:
            client.models.generate_content(model="gemini-3-pro", contents=wanted)
        except errors.ClientError as error:
            same(error.code, code)
        else:
            raise AssertionError(wanted)


def main():
    vendor, base = sys.argv[1:]
    needed = {"openai": ["openai"], "anthropic": ["anthropic"], "google": ["google.genai"]}[vendor]
    try:
        for module in needed:
            __import__(module)
    except ImportError as error:
        print(error)
        sys.exit(77)
    {"openai": check_openai, "anthropic": check_anthropic, "google": check_google}[vendor](base)


main()
