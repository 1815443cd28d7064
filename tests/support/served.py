"""Servers to ask: a small one that speaks OpenAI's completions and can misbehave, and ``transformers serve``."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHARACTERS = "春眠不覺曉處聞啼鳥夜來風雨聲花落知多少白日依山盡黃河入海流"


class Stub(ThreadingHTTPServer):
    """A deterministic model behind OpenAI's routes: a token a character, its noise a function of the seed.

    ``flaws`` name what it does wrong; ``trouble`` is given each request's body and may return a
    status to fail with, or ``drop`` to close the connection.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *flaws, port=0, models=("stub",), version="1.0", trouble=lambda body: None, delay=0.0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.flaws, self.models, self.version, self.trouble = set(flaws), list(models), version, trouble
        self.delay, self.weights, self.created = delay, "first", 0
        self.asked, self.keys = [], set()
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def work(self):
        """The requests asked that are no probe's: probes have small seeds."""
        return [body for body in self.asked if body["seed"] > 2]

    def close(self):
        self.shutdown()
        self.server_close()

    def listing(self):
        self.created += 1  # as vLLM's, which is of the moment
        return [{"id": name, "object": "model", "created": self.created, "root": f"/weights/{name}"} for name in self.models]  # fmt: skip

    def complete(self, body):
        """Status and content of an answer."""
        chat = "messages" in body
        known = {"top_k", "min_p", "repetition_penalty", "no_repeat_ngram_size", "generation_config"}
        if "strict" in self.flaws and known & body.keys():
            return 422, {"error": {"message": f"unexpected fields {sorted(known & body.keys())}"}}
        if "no_hot" in self.flaws and body["temperature"] > 2:
            return 400, {"error": {"message": "temperature must be at most 2"}}
        count = 1 if "n" in self.flaws else body.get("n", 1)
        choices, total = [], 0
        for index in range(count):
            text, tokens, finish = self.write(body, 0 if "copies" in self.flaws else index)
            total += tokens
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            logprobs = {"content" if chat else "tokens": ["x"] * tokens}
            told = body.get("logprobs") and "uncounted" not in self.flaws
            choices.append({"index": index, **said, "finish_reason": finish, "logprobs": logprobs if told else None})  # fmt: skip
        usage = {} if "usage" in self.flaws else {"usage": {"prompt_tokens": 7, "completion_tokens": total, "total_tokens": total + 7}}  # fmt: skip
        return 200, {"id": "x", "object": "text_completion", "model": body["model"], "choices": choices[::-1], **usage}  # fmt: skip

    def write(self, body, index):
        """One text, its tokens, EOS among them, and why it ended."""
        asked = body.get("prompt") or json.dumps(body["messages"], ensure_ascii=False)
        own = f"{self.weights} {body['model']} {asked}"
        hot = body["temperature"] > 0 and "temperature" not in self.flaws
        hot = hot and (body.get("top_k") != 1 or "top_k" in self.flaws)
        hot = hot and (body["top_p"] > 1e-3 or "top_p" in self.flaws)
        if "cold" in self.flaws and not hot:
            own += str(random.random())
        seed = random.random() if "seed" in self.flaws else body["seed"]
        noise = random.Random(f"{own} {body['temperature']} {seed} {index}" if hot else own)
        length = noise.choice([10, 14]) if hot else 14
        text = " " + "".join(noise.choice(CHARACTERS) + ("，" if place % 5 == 4 else "") for place in range(length)) + "。。"  # fmt: skip
        if body.get("no_repeat_ngram_size") == 1 and "banning" in self.flaws:
            text = "".join(dict.fromkeys(text))
        most = body["max_tokens"] + (9 if "max_tokens" in self.flaws else 0)
        most = min(most, 16) if "short" in self.flaws else most
        whole = len(text) < most
        finish = "stop" if whole or "finish" in self.flaws else "length"
        if "filter" in self.flaws and body["seed"] > 2:
            finish = "content_filter"
        return text[:most], min(len(text) + 1, most), finish


def take(handler):
    """Read a request's body, and note it, its key and how many are in hand on the handler's server."""
    server = handler.server
    body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
    with server.lock:
        server.asked.append(body)
        server.keys.add(handler.headers["authorization"])
        server.at_once += 1
        server.most = max(server.most, server.at_once)
    return body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        pages = {"/v1/models": {"object": "list", "data": server.listing()}}
        if server.version:
            pages["/version"] = {"version": server.version}
        if "unlisted" in server.flaws:
            del pages["/v1/models"]
        page = pages.get(self.path)
        self.send(200 if page else 404, page or {"detail": "Not Found"})

    def do_POST(self):
        server, body = self.server, take(self)
        time.sleep(server.delay)
        trouble = server.trouble(body)
        with server.lock:
            server.at_once -= 1
        if trouble == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif trouble == "html":
            self.send(200, "<p>welcome</p>")
        elif trouble:
            self.send(trouble, {"error": {"message": f"trouble {trouble}"}})
        elif self.path not in ("/v1/completions", "/v1/chat/completions"):
            self.send(404, {"detail": "Not Found"})
        else:
            self.send(*server.complete(body))

    def send(self, status, content):
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("content-type", "text/html" if isinstance(content, str) else "application/json")
        self.send_header("content-length", str(len(data)))
        if status >= 429:
            self.send_header("retry-after-ms", "5")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def transformers_serve(folder: Path, model: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """``transformers serve`` with ``model``, on the CPU: its address and its log, which lies in ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", model, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]  # fmt: skip
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            list(map(str, [*command, *options])), stdout=log, stderr=log, env=environment
        )
    try:
        until = time.monotonic() + 90
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", folder / "log"
    finally:
        process.terminate()
        process.wait(20)
