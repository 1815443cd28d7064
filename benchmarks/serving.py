"""What the engine of a server costs this machine beside the texts: its own time of the processor.

    python -m benchmarks.serving [--samples 8] [--runs 3] [--out results/bench/serving.json]

A server in a process of its own answers at once, as vLLM answers, with made-up texts of 25 tokens: 60 settings × 15
poems, 8 samples a request: 900 requests, 7,200 outputs. ``engine`` is all that `tangeval generate` does from its first
request to its last batch file; ``bare`` sends the same requests one after another over one connection and parses the
answers. Seconds are of this process's processor, the two by turns; the ratio of medians is the figure. Needs no torch.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
import yaml

from benchmarks.command import command_line
from tangeval import generation
from tangeval.core.study import load_study
from tangeval.resolve import resolve
from tangeval.results.files import write_json

TOKENS, POOL = 25, 997
_CHARACTERS = "春眠不覺曉處聞啼鳥夜來風雨聲花落知多少白日依山盡黃河入海流"


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stub", action="store_true", help="be the server")
    options = parser.parse_args()
    if options.stub:
        asyncio.run(_serve())
        return
    with _stub() as url:
        pairs = [(engine(url, options.samples), bare(url, options.samples)) for _ in range(options.runs)]
    (engines, walls, requests), (bares, *_) = (
        [statistics.median(each) for each in zip(*side, strict=True)] for side in zip(*pairs, strict=True)
    )
    report = {
        "requests": requests,
        "engine_seconds": engines,
        "engine_wall": walls,
        "bare_seconds": bares,
        "ratio": engines / bares,
    }
    print(
        f"{requests:,.0f} requests of {options.samples} texts: engine {engines:.2f} s of a core ({walls:.2f} s of the clock), "
        f"bare requests {bares:.2f} s, ratio {engines / bares:.2f}"
    )
    write_json(options.out, report)


def engine(url: str, samples: int) -> tuple[float, float, int]:
    """Return the seconds of the processor and of the clock that a study takes, and its requests."""
    decoding = {
        "temperature": [0.1 * t for t in range(1, 16)],
        "top_p": [0.7, 0.8, 0.9, 1.0],
        "no_repeat_ngram_size": 0,
    }
    study = {
        "name": "serving", "data": "hw5", "splits": ["test"], "samples": samples, "decoding": decoding,
        "engine": {"server": url, "models": {"base": "stub"}, "concurrency": 256},
        "select": {"checkpoint": "bleu", "split": "test", "setting": {"by": "bleu"}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        file = Path(folder, "serving.yaml")
        file.write_text(yaml.safe_dump(study))
        resolved = resolve(load_study(file))
        began, clock = time.process_time(), time.perf_counter()
        generation.decode(resolved, Path(folder, "out"))
        requests = len(resolved.examples("test")) * len(resolved.study.decoding.settings())
        return time.process_time() - began, time.perf_counter() - clock, requests


def bare(url: str, samples: int) -> tuple[float]:
    """Return the seconds of the processor that the same requests take one after another."""
    body = {
        "model": "stub",
        "prompt": "春" * 150,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 128,
        "n": samples,
    }
    began = time.process_time()
    with urllib3.PoolManager() as pool:
        for seed in range(900):
            answer = pool.request(
                "POST", f"{url}/completions", json=body | {"seed": seed, "return_token_ids": True}
            )
            assert len(answer.json()["choices"]) == samples
    return (time.process_time() - began,)


@contextmanager
def _stub() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.serving", "--stub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Connection(asyncio.Protocol):
    """One connection, requests one after another."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if found and len(body) >= length:
            self.received = b""
            answer = json.dumps(_answer(json.loads(body)) if length else _page(head)).encode()
            start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(start % len(answer) + answer)


def _page(head: bytes) -> dict[str, Any]:
    return {"version": "0"} if b"/version" in head else {"data": [{"id": "stub", "owned_by": "vllm"}]}


def _answer(body: dict[str, Any]) -> dict[str, Any]:
    """Texts as vLLM tells of them: those of one seed are one text at whatever temperature, save the lowest."""
    n, length = body.get("n", 1), min(TOKENS, body["max_tokens"])
    cold = body["temperature"] <= 0.01 or body["top_p"] < 0.001 or body.get("top_k") == 1
    choices = [
        _choice(body, index, 0 if cold else (body["seed"] + index) % POOL, length) for index in range(n)
    ]
    usage = {"prompt_tokens": 77, "completion_tokens": n * length, "total_tokens": 77 + n * length}
    return {
        "id": "cmpl-0",
        "object": "text_completion",
        "created": 0,
        "model": "stub",
        "choices": choices,
        "usage": usage,
    }


def _choice(body: dict[str, Any], index: int, number: int, length: int) -> dict[str, Any]:
    text = "".join(
        _CHARACTERS[(number * 7 + place * (number % 13 + 1)) % len(_CHARACTERS)] for place in range(length)
    )
    finish = "length" if length == body["max_tokens"] else "stop"
    more: dict[str, Any] = {"logprobs": None, "prompt_token_ids": None, "token_ids": None}
    if body.get("return_token_ids"):
        more |= {"prompt_token_ids": list(range(1000, 1077)), "token_ids": list(range(2000, 2000 + length))}
    if body.get("logprobs"):
        tokens = list(text[:length])
        more["logprobs"] = {
            "text_offset": list(range(length)), "token_logprobs": [-1.2345678] * length, "tokens": tokens,
            "top_logprobs": [{token: -1.2345678, "x": -0.98765432} for token in tokens],
        }  # fmt: skip
    return {
        "index": index,
        "text": text,
        "finish_reason": finish,
        "stop_reason": None,
        "prompt_logprobs": None,
        **more,
    }


if __name__ == "__main__":
    main()
