"""Language models behind a server of the OpenAI protocol: vLLM, llama.cpp, Ollama, or a service."""

from __future__ import annotations

import base64
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from mmrec.errors import ChatError, Problem, Reason
from mmrec.understanding.chat import REPAIR, Answer, Question, Usage, complaints, invalid, parse

KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
SILENT_IN_A_ROW = 8
"""So many questions without an answer, none answered between them: it is the server, not the questions."""
_TOO_LONG = ("context_length", "context length", "context size", "maximum context", "too many tokens")
_JPEG = b"\xff\xd8"


class ServerChat:
    """Asks a server; several questions are on their way at once, each is tried again where the server is busy.

    The address is `url`, or the variable OPENAI_BASE_URL; the key the variable OPENAI_API_KEY, which is shown nowhere.
    Answers are held to the schema by the server where it can do that; else the schema is shown to the model, and an
    answer that does not follow it is asked for once more.

    Args:
        model: as the server names it.
        concurrency: questions on their way at once.
        timeout_seconds: for one try of one question.
        retries: further tries, after growing pauses or as long as the server says.
        max_tokens: of one answer.
    """

    def __init__(
        self,
        model: str,
        *,
        url: str = "",
        concurrency: int = 8,
        timeout_seconds: float = 120.0,
        retries: int = 4,
        max_tokens: int = 1024,
    ) -> None:
        try:
            from openai import OpenAI
        except ImportError:
            raise ChatError(
                "asking a server needs the package openai: pip install 'mmrec[chat]'; or name a model on this machine"
            ) from None
        address = url or os.environ.get(URL_VARIABLE, "")
        if not address.startswith(("http://", "https://")):
            raise ChatError(
                f"no server for the model {model!r}: the address is {address!r}, expected http://... or https://..., "
                f"as --server or in the variable {URL_VARIABLE}"
            )
        if concurrency < 1:
            raise ChatError(f"the concurrency is {concurrency}: expected 1 or more")
        self.name, self.url = model, address
        self._concurrency, self._max_tokens = concurrency, max_tokens
        key = os.environ.get(KEY_VARIABLE) or "none"
        self._client = OpenAI(base_url=address, api_key=key, timeout=timeout_seconds, max_retries=retries)
        self._silent = 0
        self._holds_to_schema = True
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """The name alone: a server does not say which weights it runs."""
        return f"server:{self.name}:{self._max_tokens}"

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        waiting: deque[Future[Answer]] = deque()
        threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="chat")
        try:
            remaining = iter(questions)
            for question in itertools.islice(remaining, 2 * self._concurrency):
                waiting.append(threads.submit(self._answer, question))
            while waiting:
                yield waiting.popleft().result()
                for question in itertools.islice(remaining, 1):
                    waiting.append(threads.submit(self._answer, question))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, question: Question) -> Answer:
        holds = self._holds_to_schema
        messages = question.messages(show_form=not holds)
        if question.pictures:
            pictures = [{"type": "image_url", "image_url": {"url": _data_url(p)}} for p in question.pictures]
            messages[1]["content"] = [{"type": "text", "text": messages[1]["content"]}, *pictures]
        usage = Usage()
        for is_last in (False, True):
            text, more = self._complete(messages, question if holds else None)
            usage += more
            if text is None:
                return self._answer(question)  # with the schema shown
            if isinstance(text, Problem):
                return Answer(problem=text, usage=usage)
            try:
                return Answer(value=parse(text, question.form), usage=usage)
            except ValidationError as error:
                if is_last:
                    return Answer(problem=invalid(text, error), usage=usage)
                repair = REPAIR.format(errors=complaints(error))
                messages += [{"role": "assistant", "content": text}, {"role": "user", "content": repair}]
        raise AssertionError("the loop returns")

    def _complete(self, messages: list[dict[str, Any]], held_to: Question | None) -> tuple[str | Problem | None, Usage]:
        """The text of an answer, or the problem; None where the server turns out not to know schemas."""
        import openai

        form: dict[str, Any] = {}
        if held_to is not None:
            schema = {"name": held_to.form.__name__, "schema": held_to.schema(), "strict": True}
            form = {"response_format": {"type": "json_schema", "json_schema": schema}}
        try:
            reply: Any = self._client.chat.completions.create(
                model=self.name,
                messages=messages,  # type: ignore[arg-type]
                max_tokens=self._max_tokens,
                temperature=0,
                seed=0,
                **form,
            )
            choice = reply.choices[0]
            text, refusal = choice.message.content, getattr(choice.message, "refusal", None)
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise ChatError(f"server {self.url} refuses the key in {KEY_VARIABLE}") from None
        except openai.NotFoundError:
            raise ChatError(f"server {self.url} has no model {self.name!r}") from None
        except openai.BadRequestError as error:
            words = f"{error.code} {error.message}".casefold()
            if any(sign in words for sign in _TOO_LONG):
                return Problem(Reason.TOO_LONG, "the question is longer than the model can read"), Usage()
            if held_to is not None:
                self._holds_to_schema = False
                return None, Usage()
            raise ChatError(f"server {self.url} cannot read the questions: {error.message}") from None
        except (openai.APIError, IndexError, AttributeError, TypeError, ValueError) as error:
            return self._unanswered(f"{type(error).__name__}: {error}"), Usage()
        with self._lock:
            self._silent = 0
        read, written = getattr(reply.usage, "prompt_tokens", 0), getattr(reply.usage, "completion_tokens", 0)
        usage = Usage(read=read or 0, written=written or 0)
        if refusal or choice.finish_reason == "content_filter":
            return Problem(Reason.REFUSED, str(refusal or "filtered by the server")), usage
        if choice.finish_reason == "length":
            return Problem(Reason.INVALID_ANSWER, f"it was not done after {self._max_tokens} tokens"), usage
        return text or "", usage

    def _unanswered(self, words: str) -> Problem:
        with self._lock:
            self._silent += 1
            silent = self._silent
        if silent >= SILENT_IN_A_ROW:
            raise ChatError(f"server {self.url} left {silent} questions in a row without an answer: {words}")
        return Problem(Reason.NO_ANSWER, words)


def _data_url(picture: bytes) -> str:
    kind = "jpeg" if picture.startswith(_JPEG) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
