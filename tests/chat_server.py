"""A server of the OpenAI protocol that does what it is told, good and bad; it counts what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any], int], Any]
"""Of the request and its number: an answer's text, a status with a body, or "drop"."""


@dataclass
class ChatServer:
    """`url` is what a client is given; `requests` are the bodies of all that were read."""

    reply: Reply
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def chat_server(reply: Reply) -> Iterator[ChatServer]:
    served = ChatServer(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                served.requests.append(body)
                served.keys.append(self.headers.get("Authorization", ""))
                number = len(served.requests)
            answer = served.reply(body, number)
            if answer == "drop":
                self.connection.close()
                return
            status, content = answer if isinstance(answer, tuple) else (200, completion(answer))
            payload = json.dumps(content).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "0.01")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


def asked_about(body: dict[str, Any]) -> dict[str, Any]:
    """The data of a question."""
    content = body["messages"][1]["content"]
    return dict(json.loads(content if isinstance(content, str) else content[0]["text"]))


def about(topic: str) -> str:
    return json.dumps(
        {
            "topic": topic,
            "emotion": "calm",
            "scene": "",
            "objects": [],
            "summary": f"It is about {topic}.",
            "audience": "everyone",
            "concerns": [],
        }
    )
