"""Servers to ask: a small one that speaks OpenAI's API in several dialects and can misbehave, and ``transformers serve``."""

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
from zlib import crc32

from tangeval.engines.knob_checks import EACH, PROMPTS

CHARACTERS = "春眠不覺曉處聞啼鳥夜來風雨聲花落知多少白日依山盡黃河入海流"
CHECKS = PROMPTS * EACH  # the largest seed of a check
#: What each dialect's list of models says, and the fields that it knows beside OpenAI's own.
DIALECTS = {
    "vllm": ({"owned_by": "vllm"}, {"top_k", "min_p", "repetition_penalty", "n", "return_token_ids"}),
    "llamacpp": ({"owned_by": "llamacpp"}, {"top_k", "min_p", "repeat_penalty"}),
    "transformers": ({"owned_by": "me", "status": {"value": "loaded"}}, {"generation_config"}),
    "openai": ({"owned_by": "system"}, {"n"}),
    "unknown": ({"owned_by": "me"}, {"n"}),
}


class StubServer(ThreadingHTTPServer):
    """A deterministic model behind OpenAI's routes: a token a character, its noise a function of the seed.

    It honours what its ``dialect`` honours, fields that are unknown to it left out in silence (all but
    OpenAI's own refused by ``openai``). ``flaws``: a knob's name is ignored; ``ties``: what narrows draws
    to one candidate leaves two on a fifth of the prompts; ``coupled``: noise is of prompt and seed, the latter one more for each sample, as
    vLLM's is; others stand where they are looked up. ``trouble`` is given each request's
    body and may return a status, or ``drop`` to close the connection, or ``html``. ``reply`` answers a
    chat in the model's place: status and content, where a text or None is a message.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, *flaws, dialect="vllm", port=0, models=("stub",), version="1.0", trouble=lambda body: None, delay=0.0,
        reply=None,
    ):  # fmt: skip
        super().__init__(("127.0.0.1", port), _Handler)
        self.flaws, self.models, self.trouble, self.delay, self.reply = (
            set(flaws),
            models,
            trouble,
            delay,
            reply,
        )
        self.about, self.fields = DIALECTS[dialect]
        self.dialect, self.version = dialect, version if dialect == "vllm" else None
        self.asked, self.keys, self.created = [], set(), 0
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def work(self):
        """The requests asked that are no check's: checks have small seeds."""
        return [body for body in self.asked if body["seed"] > CHECKS]

    def close(self):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing of clients that went away."""

    def pages(self):
        self.created += 1  # as vLLM's, which is of the moment
        listed = [{"id": m, "object": "model", "created": self.created, "root": f"/weights/{m}", **self.about} for m in self.models]  # fmt: skip
        pages = {"/v1/models": {"object": "list", "data": listed}} if "unlisted" not in self.flaws else {}
        return pages | ({"/version": {"version": self.version}} if self.version else {})

    def knobs(self, body):
        """What a request asks for, by the names of vLLM's fields."""
        known = {name: value for name, value in body.items() if name in self.fields}
        if "generation_config" in known:
            known = json.loads(known["generation_config"])
        own = {"temperature": body["temperature"], "top_p": body["top_p"], "n": 1}
        return {**own, **{name: value for name, value in known.items() if name not in self.flaws}}

    def complete(self, body):
        """Status and content of an answer."""
        if self.reply:
            status, content = self.reply(body)
            return status, chat_reply(content) if status == 200 else content
        unknown = {"top_k", "min_p", "generation_config", "no_repeat_ngram_size"} & body.keys()
        if self.dialect == "openai" and unknown:
            return 422, {"error": {"message": f"unexpected fields {sorted(unknown)}"}}
        if "no_hot" in self.flaws and body["temperature"] > 2:
            return 400, {"error": {"message": "temperature must be at most 2"}}
        knobs = self.knobs(body)
        if knobs["n"] > 1 and knobs["temperature"] == 0:
            return 400, {"error": {"message": "n must be 1 when using greedy sampling"}}
        choices, total = [], 0
        for index in range(knobs["n"]):
            text, tokens, finish = self.write(body, 0 if "copies" in self.flaws else index)
            total += tokens
            chat = "messages" in body
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            logprobs = {"content" if chat else "tokens": ["x"] * tokens}
            told = body.get("logprobs") and "uncounted" not in self.flaws
            ids = (
                list(range(tokens))
                if knobs.get("return_token_ids") and "uncounted" not in self.flaws
                else None
            )
            choices.append({"index": index, **said, "finish_reason": finish, "logprobs": logprobs if told else None, "token_ids": ids})  # fmt: skip
        read = len(str(body.get("prompt", "")).replace("<s>", "B")) + ("adds_bos" in self.flaws)
        usage = (
            {} if "usage" in self.flaws else {"usage": {"prompt_tokens": read, "completion_tokens": total}}
        )
        return 200, {"id": "x", "object": "text_completion", "choices": choices[::-1], **usage}

    def write(self, body, index):
        """One text, its tokens, EOS among them, and why it ended."""
        knobs = self.knobs(body)
        own = f"{body['model']} {body.get('prompt') or json.dumps(body['messages'], ensure_ascii=False)}"
        temperature = knobs["temperature"] if "temperature" not in self.flaws else 1.0
        many = len(CHARACTERS)
        if temperature <= 0.01 or (knobs["top_p"] < 1e-3 and "top_p" not in self.flaws):
            many = 1
        if knobs.get("top_k", 0) > 0:
            many = min(many, knobs["top_k"])
        if many == 1 and "ties" in self.flaws and crc32(own.encode()) % 5 == 0:
            many = 2
        if "peaked" in self.flaws:  # whatever the noise
            many = 1
        key = f"{own} {temperature} {body['seed']} {index}"
        noise = random.Random(
            f"{body.get('prompt')} {body['seed'] + index}" if "coupled" in self.flaws else key
        )
        first, length = (
            random.Random(own).randrange(len(CHARACTERS)),
            noise.choice([10, 14]) if many > 2 else 14,
        )
        places = (first + 7 * place + noise.randrange(many) for place in range(length))
        verse = (
            CHARACTERS[c % len(CHARACTERS)] + ("，" if place % 5 == 4 else "")
            for place, c in enumerate(places)
        )
        text = " " + "".join(verse) + "。。"
        if knobs.get("no_repeat_ngram_size") == 1:
            text = "".join(dict.fromkeys(text))
        most = body["max_tokens"] + (9 if "max_tokens" in self.flaws else 0)
        most = min(most, 16) if "short" in self.flaws else most
        whole = len(text) < most
        finish = "stop" if whole or "finish" in self.flaws else "length"
        if "filter" in self.flaws and body["seed"] > CHECKS:
            finish = "content_filter"
        return text[:most], min(len(text) + 1, most), finish


def chat_reply(content):
    """A whole answer of the chat route; what is no text or null is sent as it is."""
    if isinstance(content, dict):
        return content
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        page = self.server.pages().get(self.path)
        self.send(200 if page else 404, page or {"detail": "Not Found"})

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.asked.append(body)
            server.keys.add(self.headers["authorization"])
            server.at_once += 1
            server.most = max(server.most, server.at_once)
        time.sleep(server.delay)
        trouble = server.trouble(body)
        answer = None if trouble else server.complete(body)
        with server.lock:
            server.at_once -= 1
        if trouble == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif trouble == "html":
            self.send(200, "<p>welcome</p>")
        elif trouble:
            self.send(trouble, {"error": {"message": f"trouble {trouble}"}})
        else:
            self.send(*answer)

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
