"""Explanations by a language model behind an OpenAI-compatible endpoint: prompt, requests, and a cache of answers.

Nothing is sent unless the user asks for it. The key goes into the request's header and nowhere else.
"""

import hashlib
import json
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.artifacts import disk_errors, write_json
from src.artifacts.files import make_folder
from src.errors import StrataError
from src.features.explaining.contexts import FeatureActivity
from src.features.explaining.explanations import Explanation
from src.features.explaining.web import Patience, WebError, fetch
from src.features.scores.logit_lens import PromotedTokens
from src.features.windows import Context

PROMPT_VERSION = 1
_LONGEST = 300
_MOST_ANSWER_BYTES = 2**20
_INSTRUCTION = (
    "A unit of a sparse dictionary, learned from the hidden states of a language model, fires on some tokens of text. "
    "You are shown excerpts in which it fires: each token on which it fires is put between << and >> and followed by "
    "its strength from 1 (weak) to 10 (the strongest seen). Some excerpts show weaker firings. You may also be shown "
    "words that become more likely after the unit fires. Say in one phrase of 3 to 15 words what the unit responds to: "
    "as specific as the excerpts allow, and true of the weaker ones too. Answer with the phrase alone."
)


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible chat endpoint. key: None = none is sent."""

    base_url: str
    model: str
    key: str | None
    temperature: float | None
    max_tokens: int | None
    patience: Patience

    def body(self, prompt: str) -> dict[str, Any]:
        """What is sent for a prompt."""
        messages = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": prompt}]
        settings = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        sent = {key: value for key, value in settings.items() if value is not None}
        return {"model": self.model, "messages": messages, **sent}

    def ask(self, body: Mapping[str, Any]) -> str:
        """The answer to a request. Raises WebError when it fails, MalformedAnswer for an answer without text."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.base_url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        try:
            answer = fetch(request, self.patience, most_bytes=_MOST_ANSWER_BYTES, follow_redirects=False)
        except WebError as error:
            # servers like to quote the key that they refuse
            raise WebError(self._without_key(f"{error} {_said(error.text)}".strip()), error.status) from None
        return _text_of(answer)

    def _without_key(self, message: str) -> str:
        return message if not self.key else message.replace(self.key, "[key]")


class MalformedAnswer(Exception):
    """An answer that holds no explanation."""


def explainer_prompt(
    activity: FeatureActivity, strings: Mapping[int, str], promoted: PromotedTokens | None, n_contexts: int
) -> str:
    """What the explainer is shown of a feature: its top contexts, some weaker ones, and the words that it promotes."""
    top = [context for context in activity.contexts if context.band is None]
    weaker = [context for context in activity.contexts if context.band is not None]
    n_weaker = min(len(weaker), n_contexts // 3)
    # spread over the bands, which come strongest first
    spread = [weaker[i * len(weaker) // n_weaker] for i in range(n_weaker)]
    lines = [f"{i}. {_marked(it, strings, activity.maximum)}" for i, it in enumerate(top[: n_contexts - n_weaker], 1)]
    lines = ["Excerpts, strongest first:", *lines]
    if spread:
        lines += ["Excerpts with weaker firings:", *(f"- {_marked(it, strings, activity.maximum)}" for it in spread)]
    if promoted is not None and promoted.promoted:
        words = ", ".join(json.dumps(strings[token].strip(), ensure_ascii=False) for token, _ in promoted.promoted[:8])
        lines.append(f"Words that become more likely: {words}")
    return "\n".join(lines)


def _marked(context: Context, strings: Mapping[int, str], maximum: float) -> str:
    pieces = []
    for token, activation in zip(context.token_ids, context.activations, strict=True):
        text = strings[token].replace("\n", "\\n")
        if activation > 0:
            bare = text.lstrip(" ")
            strength = min(max(round(10 * activation / maximum), 1), 10)
            text = f"{text[: len(text) - len(bare)]}<<{bare}>>({strength})"
        pieces.append(text)
    return "".join(pieces).strip()


class AnswerCache:
    """Answers on disk by endpoint and request, so that nothing is asked, or paid for, twice."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        self._folder, self._endpoint = folder, endpoint

    def _path(self, body: Mapping[str, Any]) -> Path:
        question = json.dumps([self._endpoint.base_url, body], sort_keys=True)
        return self._folder / f"{hashlib.sha256(question.encode()).hexdigest()}.json"

    def find(self, body: Mapping[str, Any]) -> str | None:
        """The answer that was given before."""
        try:
            text = json.loads(self._path(body).read_text(encoding="utf-8"))["explanation"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return text if isinstance(text, str) else None

    def keep(self, body: Mapping[str, Any], text: str) -> None:
        """Keep an answer."""
        make_folder(self._folder)
        path = self._path(body)
        with disk_errors(path):
            write_json(path, {"model": self._endpoint.model, "explanation": text})


@dataclass(frozen=True)
class Asked:
    """What came of asking. failed: features without an explanation, with the reason."""

    explanations: list[Explanation]
    failed: dict[int, str]


def explain_features(
    endpoint: Endpoint,
    prompts: Mapping[int, str],
    cache: AnswerCache,
    concurrency: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Asked:
    """Ask for an explanation of each feature, `concurrency` requests at a time; what the cache has is not asked.

    An answer without text, or a failure that is the request's own, costs that feature alone. Raises StrataError where
    the endpoint refuses the key, the model or the address, or is out of reach: what was answered stays in the cache.
    """
    answers: dict[int, str] = {}
    failed: dict[int, str] = {}
    stop = threading.Event()

    def ask(body: dict[str, Any]) -> str | None:
        return None if stop.is_set() else endpoint.ask(body)

    todo: list[tuple[int, dict[str, Any]]] = []
    for feature, prompt in prompts.items():
        body = endpoint.body(prompt)
        known = cache.find(body)
        if known is None:
            todo.append((feature, body))
        else:
            answers[feature] = known
    with ThreadPoolExecutor(concurrency, thread_name_prefix="explainer") as pool:
        try:
            running: dict[Future[str | None], tuple[int, dict[str, Any]]] = {}
            for done in _few_at_a_time(pool, ask, todo, running, concurrency):
                feature, body = running.pop(done)
                advance(1)
                try:
                    text = done.result()
                except MalformedAnswer as error:
                    failed[feature] = str(error)
                    continue
                except WebError as error:
                    if error.status in (400, 413, 422) and (answers or len(todo) > 1):
                        failed[feature] = str(error)
                        continue
                    raise StrataError(
                        f"the explainer failed: {error}. Answers so far are kept: run again to go on. Check "
                        "explainer.base_url, explainer.model and the key in the variable explainer.api_key_env"
                    ) from None
                if text is not None:
                    cache.keep(body, text)
                    answers[feature] = text
        except BaseException:
            stop.set()  # what waits is not sent
            raise
    found = [
        Explanation(feature, answers[feature], endpoint.model, "explainer") for feature in prompts if feature in answers
    ]
    if failed and not found:
        raise StrataError(f"the explainer gave no usable answer: {next(iter(failed.values()))}")
    return Asked(found, failed)


def _few_at_a_time(
    pool: ThreadPoolExecutor,
    ask: Callable[[dict[str, Any]], str | None],
    todo: Sequence[tuple[int, dict[str, Any]]],
    running: dict[Future[str | None], tuple[int, dict[str, Any]]],
    concurrency: int,
) -> Iterable[Future[str | None]]:
    """Futures as they are done; a request is handed to the pool when another has ended."""
    waiting = list(reversed(todo))
    while waiting or running:
        while waiting and len(running) < concurrency:
            feature, body = waiting.pop()
            running[pool.submit(ask, body)] = feature, body
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        yield from done


def _text_of(answer: bytes) -> str:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise MalformedAnswer(f"the answer is no chat completion ({type(error).__name__}: {error})") from None
    if not isinstance(content, str) or not content.strip():
        raise MalformedAnswer("the answer has no text")
    # JSON may hold half a surrogate pair, which no file takes
    line = content.encode("utf-8", "replace").decode().strip().splitlines()[0].strip().strip("\"'`*").strip()
    line = line.removeprefix("Explanation:").strip()
    if not line:
        raise MalformedAnswer("the answer has no text")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _said(text: str) -> str:
    words = " ".join(text.split())
    return f"({words[:300]})" if words else ""
