"""The table of the fields that requests have, besides those of the samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "DETOKENIZE",
    "FIELDS",
    "NEUTRAL",
    "OLD",
    "OLD_DEFAULTS",
    "TOKENIZE",
    "Field",
    "same",
]

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
OLD = "/generated_texts/"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request."""

    name: str
    paths: tuple[str, ...]
    """The endpoints that have it."""
    schema: Mapping[str, Any]
    """What its value has to be; null is accepted too, unless it is needed."""
    does: str
    """One sentence for the documents."""
    used: bool = True
    """False: nothing is done with it, as its accepted values mean what is done anyway."""
    needed: bool = False
    default: Any = None


_BOTH = (COMPLETIONS, CHAT)
_ID: Final = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_IDS: Final = {"type": "array", "items": _ID, "minItems": 1}
_TEXT: Final = {"type": "string"}
_STOP_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 256}
_COUNT: Final = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_NOTHING: Final = {"type": "null"}
_PART: Final = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["text"]},
        "text": _TEXT,
        "prompt_cache_breakpoint": _NOTHING,
    },
    "required": ["type", "text"],
    "additionalProperties": False,
}
_EMPTY: Final = {"type": ["array", "null"], "maxItems": 0}
_MESSAGE: Final = {
    "type": "object",
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
        "content": {
            "anyOf": [_TEXT, {"type": "array", "items": _PART, "minItems": 1, "maxItems": 256}]
        },
        "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 64},
        # What the message of an answer has, so that it can be sent back as it is.
        "refusal": _NOTHING,
        "audio": _NOTHING,
        "function_call": _NOTHING,
        "annotations": _EMPTY,
        "tool_calls": _EMPTY,
    },
    "required": ["role", "content"],
    "additionalProperties": False,
}
_MESSAGES: Final = {"type": "array", "items": _MESSAGE, "minItems": 1, "maxItems": 1024}
_USAGE: Final = {
    "type": "object",
    "properties": {
        "include_usage": {"type": ["boolean", "null"]},
        "include_obfuscation": {"type": ["boolean", "null"], "enum": [False, None]},
        "continuous_usage_stats": {"type": ["boolean", "null"], "enum": [False, None]},
    },
    "additionalProperties": False,
}


def same(name: str, paths: tuple[str, ...], *values: Any, does: str = "") -> Field:
    """Return a field that is accepted at the values that mean what is done anyway."""
    return Field(name, paths, {"enum": list(values)}, does or "It is so.", used=False)


def ignored(name: str, kind: str, does: str, **bounds: Any) -> Field:
    return Field(name, _BOTH, {"type": kind, **bounds}, does, used=False)


FIELDS: Final = (
    Field(
        "model",
        (*_BOTH, TOKENIZE, DETOKENIZE),
        {"type": "string", "maxLength": 200},
        "One of the server's names of its model; may be left out.",
    ),
    Field(
        "prompt",
        (COMPLETIONS,),
        {
            "anyOf": [
                _TEXT,
                {"type": "array", "items": _TEXT, "minItems": 1},
                _IDS,
                {"type": "array", "items": _IDS, "minItems": 1},
            ]
        },
        "A text, several texts, the ids of tokens, or several lists of ids.",
        needed=True,
    ),
    Field(
        "messages",
        (CHAT,),
        _MESSAGES,
        "The turns of a conversation; contents are texts or parts of type text; a role has one name at most.",
        needed=True,
    ),
    Field(
        "max_tokens",
        (COMPLETIONS,),
        {**_COUNT, "minimum": 0},
        "The most tokens to generate, as far as the context has room; 0 only with echo.",
        default=16,
    ),
    Field(
        "max_tokens",
        (CHAT,),
        _COUNT,
        "The most tokens to generate; by default as many as the context has room for.",
    ),
    Field("max_completion_tokens", (CHAT,), _COUNT, "The same; it wins over max_tokens."),
    Field(
        "min_tokens",
        _BOTH,
        {**_COUNT, "minimum": 0},
        "The fewest tokens before the model may end the text; the context needs room for them.",
        default=0,
    ),
    Field("n", _BOTH, _COUNT, "How many choices to generate for each prompt.", default=1),
    Field("best_of", (COMPLETIONS,), _COUNT, "Accepted where it equals n."),
    Field(
        "seed",
        _BOTH,
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        "Equal seeds, prompts and parameters give equal texts; by default each request has its own.",
    ),
    Field(
        "stop",
        _BOTH,
        {"anyOf": [_STOP_TEXT, {"type": "array", "items": _STOP_TEXT, "maxItems": 16}]},
        "Up to 16 strings that end the text; they are not part of it.",
    ),
    Field(
        "stop_token_ids",
        _BOTH,
        {"type": "array", "items": _ID, "maxItems": 16},
        "Ids that end the text, as vLLM has it.",
    ),
    Field(
        "stream",
        _BOTH,
        {"type": "boolean"},
        "Send the text as it is made, in server-sent events.",
        default=False,
    ),
    Field(
        "stream_options", _BOTH, _USAGE, "include_usage: end a stream with a chunk of its usage."
    ),
    Field(
        "echo",
        (COMPLETIONS,),
        {"type": "boolean"},
        "Begin the text with the prompt.",
        default=False,
    ),
    Field(
        "logprobs",
        (COMPLETIONS,),
        {"type": "integer", "minimum": 0, "maximum": 5},
        "How many of the likeliest tokens to tell beside each; with echo also beside the prompt's.",
    ),
    Field(
        "logprobs",
        (CHAT,),
        {"type": "boolean"},
        "Tell the log probability of each token.",
        default=False,
    ),
    Field(
        "top_logprobs",
        (CHAT,),
        {"type": "integer", "minimum": 0, "maximum": 20},
        "How many of the likeliest tokens to tell beside each; needs logprobs.",
    ),
    Field(
        "return_token_ids",
        _BOTH,
        {"type": "boolean"},
        "Tell the ids of tokens in token_ids, and of a completion's prompt in prompt_token_ids, as vLLM does.",
        default=False,
    ),
    Field(
        "return_tokens_as_token_ids",
        _BOTH,
        {"type": "boolean"},
        "Name every token of logprobs by its id, as token_id:N, as vLLM does.",
        default=False,
    ),
    Field("prompt", (TOKENIZE,), _TEXT, "A text."),
    Field("messages", (TOKENIZE,), _MESSAGES, "A conversation, instead of a prompt."),
    Field("tokens", (DETOKENIZE,), {**_IDS, "minItems": 0}, "The ids of tokens.", needed=True),
    Field("seed_text", (OLD,), _TEXT, "The text to continue."),
    Field("body", (OLD,), _TEXT, "The same, in the later dialect."),
    Field("meta", (OLD,), _TEXT, "The label of a document, where the engine has such."),
    Field("generation_max_len", (OLD,), _COUNT, "The most tokens to generate.", default=64),
    Field("max_number_of_generated_tokens", (OLD,), _COUNT, "The same, in the later dialect."),
    Field("num_return_sequences", (OLD,), _COUNT, "How many texts to generate.", default=4),
    ignored("user", "string", "Nothing is done with it."),
    ignored("safety_identifier", "string", "Nothing is done with it."),
    ignored("prompt_cache_key", "string", "Nothing is done with it."),
    ignored("metadata", "object", "Nothing is done with it."),
    same("store", _BOTH, False, does="Nothing is stored."),
    same("service_tier", _BOTH, "auto", "default", does="There is one."),
    same("suffix", (COMPLETIONS,), None, does="Texts are continued, never filled in."),
    same(
        "add_special_tokens",
        (COMPLETIONS, TOKENIZE),
        True,
        does="A prompt is encoded as a document begins.",
    ),
    same("add_generation_prompt", (CHAT, TOKENIZE), True, does="The model answers."),
    same("return_token_strs", (TOKENIZE,), False),
    same("response_format", _BOTH, {"type": "text"}, does="Answers are texts."),
    same("modalities", (CHAT,), ["text"], does="Answers are texts."),
    same("tools", (CHAT,), [], does="There are no tools."),
    same("functions", (CHAT,), [], does="There are no functions."),
    same("tool_choice", (CHAT,), "none", "auto", does="There are no tools."),
    same("function_call", (CHAT,), "none", "auto", does="There are no functions."),
    same("parallel_tool_calls", (CHAT,), True, False, does="There are no tools."),
    same("web_search_options", (CHAT,), None, does="Nothing is searched."),
    same("audio", (CHAT,), None, does="Answers are texts."),
    same("prediction", (CHAT,), None, does="Texts are made without a draft."),
    same("reasoning_effort", (CHAT,), "none", does="The model answers without thinking first."),
    same("verbosity", (CHAT,), "medium", does="An answer is as long as the model makes it."),
    same("moderation", (CHAT,), None, does="Nothing is judged."),
    same("prompt_cache_options", (CHAT,), None, does="The engine keeps what it can."),
    same("prompt_cache_retention", (CHAT,), "in_memory", does="The engine keeps what it can."),
    same("ignore_eos", _BOTH, False, does="The end of a document ends the text."),
    same("skip_special_tokens", _BOTH, True, does="Control tokens have no text."),
    same("include_stop_str_in_output", _BOTH, False, does="Stop strings are not part of the text."),
    same("chat_template", (CHAT, TOKENIZE), None, does="The model has its own."),
    same("chat_template_kwargs", (CHAT, TOKENIZE), None, {}, does="The model's template has none."),
)
"""Every field but those of the samplers."""

NEUTRAL: Final = {
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
}
"""Parameters of OpenAI's interface at the values that change nothing, for samplers without them."""

OLD_DEFAULTS: Final = {"temperature": 0.7, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}
"""What the predecessor's route takes without a word, where the samplers have it."""
