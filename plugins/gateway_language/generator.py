"""The base of classes that serve a language model: requests to prompts, tokens of an engine to answers.

A subclass loads the weights and sets the attributes of `TextGenerator`. `Reply` makes an answer of the tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway_fields import unsupported

from gateway import BadRequest, ConfigError

from . import fields, requests
from .answer import CLOSE, TAGS, Answer, Thinking
from .engines import Engine
from .gguf.faults import cut_markers
from .logprobs import Logprobs
from .prompts import Prompt, Prompts, wants_thought
from .reply import Reply
from .requests import Tools
from .sampling import Record, Sampling
from .structured import asked, guide
from .structured.grammars import Thoughts
from .text import BadWords, StopStrings, TextStream
from .tools import Parser, family
from .vocabulary import vocabulary

LONG_PROMPT = 20_000  # characters above which a prompt is tokenised off the loop; this many take about 10 ms
COMPLETION = 16  # default tokens of a completion, as in OpenAI's API
SHORTEST = 64  # tokens; a model with less room in a slot is not served


class TextGenerator:
    """Chat and completions of one model, with many requests at a time."""

    # Set by `load`.
    tokenizer: Any  # of transformers, or the part of it that `prompts` and `text` use
    vocabulary: int  # tokens that the model knows
    max_model_len: int
    stop_ids: frozenset[int]  # tokens that end an answer

    def __init__(self, config: Mapping[str, Any], data_dir: Path) -> None:
        self.config = config
        self.options = config.get("options") or {}
        self.capabilities: dict[str, Any] = {}
        self.engine: Engine | None = None
        self.defaults: dict[str, Any] = {}  # of `Sampling`
        self.is_gguf = False
        self.family: type[Parser] | None = None  # the format of its tool calls, if it can make any
        self.thinks = False

    def _learn_format(self) -> None:
        """Detect the format of thoughts and calls from the chat template and the vocabulary."""
        template = self.tokenizer.chat_template or ""
        template = template if isinstance(template, str) else "\n".join(template.values())
        known = {token.content: number for number, token in self.tokenizer.added_tokens_decoder.items()}
        if self.is_gguf and (warning := cut_markers(template, self.tokenizer.get_vocab(), known)):
            print(f"warning: {warning}")
        self.family = family(template)
        self.thinks = TAGS[1] in template or known.keys() >= set(TAGS)
        tags = {known[tag]: tag for tag in (*TAGS, *(self.family.tags if self.family else ())) if tag in known}
        self.special_tags = {
            token: tag for token, tag in tags.items() if self.tokenizer.added_tokens_decoder[token].special
        }
        # llama.cpp begins every prompt as the file says, even if its template does not
        begins = begin_of(self.tokenizer) if self.is_gguf else []
        self.prompts = Prompts(self.tokenizer, self.family, self.thinks, begins)
        self.guides = guide.Guides(self.tokenizer, self.vocabulary)

    def unload(self) -> None:
        if self.engine is not None:
            self.engine.stop()

    def is_healthy(self) -> bool:
        return self.engine is not None and self.engine.is_alive

    async def chat_completions(self, inputs: dict[str, Any]) -> AsyncIterator[str | dict[str, Any]]:
        """Yield pieces of text, thoughts and calls as they are generated, then the finish reason and the usage."""
        inputs = self._check(inputs, "chat")
        tools = requests.read_tools(inputs, can_call=self.family is not None)
        async with aclosing(self._answer(inputs, "messages", self.prompts.chat, tools)) as items:
            async for item in items:
                yield item

    async def completions(self, inputs: dict[str, Any]) -> AsyncIterator[str | dict[str, Any]]:
        """Do the same for a bare prompt, text or token ids. The whole answer is text, even if it looks like a call."""
        inputs = self._check(inputs, "completions")
        if not {"max_tokens", "max_completion_tokens"} & inputs.keys():
            inputs["max_tokens"] = COMPLETION
        async with aclosing(self._answer(inputs, "prompt", self.prompts.plain)) as items:
            async for item in items:
                yield item

    def tokenize(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the ids of the prompt that chat or completions would make of the same fields."""
        tokens = self.prompt_ids(inputs)
        names = self.tokenizer.convert_ids_to_tokens(tokens) if inputs.get("return_token_strs") else None
        return {"tokens": tokens, "token_strs": names}

    def count_tokens(
        self,
        value: Any,
        tools: list[dict[str, Any]] | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> int:
        """Count the tokens of a text, of token ids, or of the prompt that chat would make of messages.

        The other fields are given as `inputs`, the whole request, or by name.
        """
        if not (isinstance(value, list) and value and isinstance(value[0], dict)):
            return len(self.prompt_ids({"prompt": value}))
        return len(self.prompt_ids({**(inputs or {}), **fields, "messages": value, "tools": tools}))

    def prompt_ids(self, inputs: Mapping[str, Any]) -> list[int]:
        """Return the prompt that chat makes of `messages`, or completions of `prompt`."""
        is_chat = "messages" in inputs
        inputs = fields.check(inputs, "chat" if is_chat else "completions", is_counted=True)
        asked = requests.read_limit(inputs, 1 if is_chat else 0)
        answer = asked if asked is not None else 1 if is_chat else COMPLETION
        prompt = self.prompts.chat(inputs) if is_chat else self.prompts.plain(inputs)
        return requests.truncated(prompt.ids, inputs, self.max_model_len - answer)

    def _check(self, inputs: Mapping[str, Any], source: fields.Source) -> dict[str, Any]:
        """Return the request with our field names. Raises `BadRequest` for what the engine cannot do."""
        return fields.check(inputs, source)

    async def _answer(
        self,
        inputs: Mapping[str, Any],
        source: str,
        read: Callable[[Mapping[str, Any]], Prompt],
        tools: Tools | None = None,
    ) -> AsyncIterator[str | dict[str, Any]]:
        """Generate an answer. `read` makes a prompt of the field `source`."""
        assert self.engine is not None, "a request came before the load"
        sampling = Sampling(**{**self.defaults, **requests.read_sampling(inputs, self.vocabulary)})
        stop_ids = requests.read_stop_ids(inputs, self.stop_ids)
        keeps_stop = requests.read_flag(inputs, "include_stop_str_in_output")
        stops = StopStrings(requests.read_texts(inputs, "stop"), keeps=keeps_stop, armed=not sampling.min_tokens)
        if words := requests.read_texts(inputs, "bad_words"):
            sampling = replace(sampling, forbids=BadWords(self.tokenizer, words))
        priority = requests.read_whole(inputs, "priority", -(2**63)) if "priority" in inputs else 0
        is_long = len(str(inputs.get(source))) + len(str(inputs.get("tools"))) > LONG_PROMPT
        whole = await asyncio.to_thread(read, inputs) if is_long else read(inputs)
        prompt, limit = self._fitted(whole.ids, inputs, source)
        if sampling.min_tokens > limit:
            raise BadRequest(f"min_tokens must be at most max_tokens, which is {limit}", param="min_tokens")
        thinking = None if whole.thought is None else Thinking(whole.thought, goes_on=whole.goes_on)
        calls, tags = None, TAGS if thinking else ()
        if tools is not None and self.family is not None:
            calls, tags = self.family(tools.names, single=tools.single), (*tags, *self.family.tags)
            if tools.forced:
                sampling = replace(sampling, begins=self._begins(tools, is_thinking=whole.thought is True))
        form = asked.read_form(inputs, tools, self.family)
        if form is not None and not (form.is_best_effort and guide.why_not(self.tokenizer)):
            shape = await self._guide(form, whole, tools, stop_ids, wants_thought=wants_thought(inputs))
            sampling = replace(sampling, begins=(), guide=shape)
        record = Record()
        # chat reports those of its content, completions all that were requested
        scored = Logprobs(self.tokenizer, record, every=source == "prompt")
        logprobs = scored if sampling.logprobs is not None else None
        echo = requests.read_flag(inputs, "echo")
        markup = {token: tag for token, tag in self.special_tags.items() if tag in tags}
        text = TextStream(self.tokenizer, prompt, markup)
        is_as_sent = isinstance(inputs.get("prompt"), str) and prompt == whole.ids
        echoed = "" if not echo else inputs["prompt"] if is_as_sent else text.begun(prompt)
        if echo and logprobs is not None:
            sampling = replace(sampling, prompt_logprobs=True)
        elif echo:
            yield {"content": echoed}
        answer = Answer(thinking, calls, stops)
        reply = Reply(text, answer, stop_ids, logprobs, least=sampling.min_tokens, keeps_stop=keeps_stop)
        tells_usage = requests.read_tells_usage(inputs)
        # An answer of zero tokens is requested to see the prompt; its log probabilities come with a first token.
        length = limit or (1 if sampling.prompt_logprobs else 0)
        if length:
            async with aclosing(self.engine.generate(prompt, length, stop_ids, sampling, record, priority)) as steps:
                async for tokens in steps:
                    if sampling.prompt_logprobs and logprobs is not None and not reply.count:
                        yield {"content": echoed, "logprobs": logprobs.of_prompt(prompt, echoed)}
                    events = reply.read(tokens) if limit else ()
                    if tells_usage:
                        yield {"usage": reply.usage(len(prompt), record.cached)}
                    for event in events:
                        yield event
                    if reply.reason is not None:
                        break
        if sampling.guide is not None:
            check_end(reply, sampling.guide)
        for event in reply.finish():
            yield event
        yield reply.ending(len(prompt), record.cached)

    def _begins(self, tools: Tools, *, is_thinking: bool) -> tuple[tuple[int, ...], ...]:
        """Return how the answer may begin if a function must be called; an open thought is closed first."""
        assert self.family is not None
        before, forced = f"\n{CLOSE}\n\n" if is_thinking else "", self.family.forced
        return tuple(tuple(self.prompts.call(name, lambda name: before + forced(name))) for name in tools.forced)

    async def _guide(
        self,
        form: asked.Form,
        prompt: Prompt,
        tools: Tools | None,
        stop_ids: frozenset[int],
        *,
        wants_thought: bool,
    ) -> guide.Guide:
        """Compile the form of an answer, off the loop. If a function must be called, an open thought is closed first.

        A thought that the prompt has not begun is only allowed if one was asked for: a model that may not write what it
        likes would rather think without end.

        Raises:
            BadRequest: it cannot be enforced.
        """
        if why := guide.why_not(self.tokenizer):
            raise unsupported(f"{form.where} needs {why}", form.where)
        if prompt.goes_on and form.where != "tools":
            what = (
                f"{form.where} cannot be combined with the beginning of an answer: the form is that of a whole answer"
            )
            raise unsupported(what, form.where)
        thoughts, must_call = None, tools is not None and bool(tools.forced)
        if prompt.thought or (prompt.thought is not None and wants_thought and not must_call):
            thoughts = Thoughts(prompt.thought, at_once=must_call)
        special = {tag: token for token, tag in self.special_tags.items()}
        ends = [token for token in stop_ids if vocabulary(self.tokenizer).skips(token)]
        return await asyncio.to_thread(form.guide, self.guides, special, thoughts, ends)

    def _fitted(self, prompt: list[int], inputs: Mapping[str, Any], source: str) -> tuple[list[int], int]:
        """Return the prompt, truncated if requested, and the maximum tokens of the answer.

        Raises `BadRequest` for a prompt, or a prompt with its answer, that is too long for the engine.
        """
        wanted = requests.read_limit(inputs, 0 if source == "prompt" else 1)
        most, needs = self.max_model_len, 1 if wanted is None else wanted
        prompt = requests.truncated(prompt, inputs, most - needs)
        if not prompt:
            raise BadRequest("the prompt is empty", param=source)
        if min(prompt) < 0 or max(prompt) >= self.vocabulary:  # it would fail the whole batch
            raise BadRequest(f"the model knows tokens 0 to {self.vocabulary - 1} only", param=source)
        used, code = len(prompt), "context_length_exceeded"
        limit = f"This model's maximum context length is {most} tokens. However,"
        if used + min(needs, 1) > most:
            what = f"{limit} your {source} resulted in {used} tokens. Please reduce the length of the {source}."
            raise BadRequest(what, param=source, code=code)
        if used + needs > most:
            asked = f"you requested {used + needs} tokens ({used} in the {source}, {needs} in the completion)."
            what = f"{limit} {asked} Please reduce the length of the completion to {most - used} or less."
            raise BadRequest(what, param="max_tokens", code=code)
        return prompt, most - used if wanted is None else wanted


def check_end(reply: Reply, guide: guide.Guide) -> None:
    """Note that an answer is complete, by its grammar.

    Raises:
        BadRequest: the grammar is too complex to say what may follow.
    """
    if guide.failure:
        what = f"the form of the answer is too complex to be enforced: {guide.failure[:300]}"
        raise BadRequest(what, code="unsupported_value")
    if guide.is_over and reply.reason is None:
        reply.reason = "stop"


def begin_of(tokenizer: Any) -> list[int]:
    """Return the token with which the tokenizer begins prompts, if there is one."""
    ids: list[int] = tokenizer("")["input_ids"][:1]
    return ids if ids == [tokenizer.bos_token_id] else []


def templates(given: str | dict[str, str] | None, chosen: str | None) -> str | dict[str, str] | None:
    """Return the chat templates with the chosen one as default; without a default no request could be answered."""
    known = given if isinstance(given, dict) else {"default": given} if given else {}
    if chosen is None and ("default" in known or not known):
        return given
    names = ", ".join(known) or "none"
    if chosen is None:
        raise ConfigError(f"no chat template is called default (have: {names}); name one: options.chat_template: NAME")
    if chosen not in known:
        raise ConfigError(f"options.chat_template: no chat template is called {chosen!r} (have: {names})")
    return {**known, "default": known[chosen]}
