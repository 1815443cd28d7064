"""The same texts by vLLM itself and by `tangeval generate` through vLLM's server, on one GPU.

    python -m benchmarks.vllm MODEL [--samples 8] [--concurrency 64 256 512] [--unseeded] [--runs 3] [--out …]

MODEL is a folder or hub id that vLLM serves: 60 settings × 15 test poems (HW5: $TANGEVAL_DATA) × samples. First
``LLM.generate`` in a process of its own, warm: with n samples a request, seeds and detokenizing as the server has them.
Then ``vllm serve``: ``bare`` are the same requests from threads that only count the answers; ``tangeval`` all that
`tangeval generate` does, once for each concurrency after a run that warms the server; ``decoding`` without the questions
before the first text. A request with a seed keeps its whole batch from FlashInfer's sampler, vLLM's fastest: with
``--unseeded`` the process of its own also times requests without. ``sampler`` is what vLLM's log says of it. Wants vllm,
urllib3 and tangeval in one environment; loads MODEL twice, some minutes in all.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
import yaml

from benchmarks.command import command_line
from tangeval import generation
from tangeval.core.study import load_study
from tangeval.engines import make
from tangeval.engines.base import asked
from tangeval.engines.client import in_flight
from tangeval.resolve import ResolvedStudy, resolve
from tangeval.results.files import write_json
from tangeval.results.folder import RunFolder

PORT, LENGTH, BARE = 8123, 128, 256
_OPTIONS = ("--generation-config", "vllm", "--max-model-len", "512", "--gpu-memory-utilization", "0.8")


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--offline", action="store_true", help="be vLLM, and print its seconds")
    parser.add_argument("--unseeded", action="store_true", help="time vLLM alone without seeds too")
    parser.add_argument("--runs", type=int, default=3, help="timed ones of vLLM alone, after a warm one")
    options = parser.parse_args()
    if options.offline:
        print(json.dumps(offline(options.model, options.samples, options.unseeded, options.runs)), flush=True)
        return
    alone = [
        sys.executable,
        "-m",
        "benchmarks.vllm",
        options.model,
        "--samples",
        str(options.samples),
        "--offline",
        "--runs",
        str(options.runs),
        *(["--unseeded"] if options.unseeded else []),
    ]
    done = subprocess.run(alone, stdout=subprocess.PIPE, text=True)
    sys.stderr.write(done.stdout)
    done.check_returncode()
    told = done.stdout.splitlines()
    figures = next(line for line in reversed(told) if line.startswith('{"first"'))  # the log is there too
    report: dict[str, Any] = {"offline": json.loads(figures), "tangeval": {}}
    report["sampler"] = sorted(
        {line.split("] ")[-1] for line in told if "& top-k sampling" in line or "top-p/top-k" in line}
    )
    say("vLLM alone", **report["offline"], sampler=report["sampler"])
    write_json(options.out, report)
    with served(options.model) as url:
        served_once(url, options.samples, 256, 1)  # warms it
        report["bare"] = [bare(url, options.samples) for _ in range(3)]
        say(f"bare requests, {BARE} in flight", seconds=report["bare"])
        for number, concurrency in enumerate(options.concurrency, 2):
            found = served_once(url, options.samples, concurrency, number)
            report["tangeval"][concurrency] = found
            write_json(options.out, report)
            say(f"tangeval, {concurrency} in flight", **found)
    best = min(each["seconds"] for each in report["tangeval"].values())
    report["ratio"] = best / statistics.median(report["offline"]["seconds"])
    say("tangeval ÷ vLLM alone", ratio=report["ratio"])
    write_json(options.out, report)


def say(what: str, **figures: Any) -> None:
    print(what, json.dumps(figures), flush=True)


def study(samples: int, url: str, concurrency: int, seed: int) -> ResolvedStudy:
    """Return the study; another seed makes other texts."""
    decoding = {
        "temperature": [0.1, 0.4, 0.7, 1.0, 1.3], "top_k": [0, 5, 50], "top_p": [0.3, 0.6, 0.9, 1.0],
        "max_length": LENGTH, "no_repeat_ngram_size": 0,
    }  # fmt: skip
    content = {
        "name": "vllm", "data": "hw5", "splits": ["test"], "samples": samples, "decoding": decoding, "seed": seed,
        "engine": {"server": url, "models": {"base": "base"}, "concurrency": concurrency},
        "select": {"checkpoint": "bleu", "split": "test", "setting": {"by": "bleu"}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vllm.yaml")
        file.write_text(yaml.safe_dump(content))
        return resolve(load_study(file))


def fields(samples: int) -> list[tuple[str, dict[str, Any]]]:
    """Return each request's prompt and what it asks for, by vLLM's names."""
    resolved = study(samples, "http://localhost/v1", 1, 0)
    return [
        (
            str(asked(resolved, example)),
            {"n": samples, "seed": 1000 * number, "temperature": s.temperature, "top_p": s.top_p,
             "top_k": s.top_k or -1, "max_tokens": LENGTH},
        )
        for number, example in enumerate(resolved.examples("test"))
        for s in resolved.study.decoding.settings()
    ]  # fmt: skip


def offline(model: str, samples: int, unseeded: bool, runs: int) -> dict[str, Any]:
    """Return the seconds of so many runs after a warm one, and the tokens of the last; with ``unseeded`` those too."""
    from vllm import LLM, SamplingParams

    llm = LLM(model, generation_config="vllm", max_model_len=512, gpu_memory_utilization=0.8)
    requests = fields(samples)

    def timed(**instead: Any) -> dict[str, Any]:
        seconds = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            made = llm.generate(
                [p for p, _ in requests], [SamplingParams(**f | instead) for _, f in requests], use_tqdm=False
            )
            seconds.append(time.perf_counter() - began)
        tokens = sum(len(output.token_ids) for each in made for output in each.outputs)
        return {"first": seconds[0], "seconds": seconds[1:], "tokens": tokens}

    found = timed()
    return found | {"unseeded": timed(seed=None)} if unseeded else found


@contextmanager
def served(model: str) -> Iterator[str]:
    command = [
        "vllm",
        "serve",
        model,
        "--served-model-name",
        "base",
        "--port",
        str(PORT),
        "--disable-uvicorn-access-log",
    ]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([*command, *_OPTIONS], stdout=log, stderr=log) as process,
    ):
        try:
            url, until = f"http://127.0.0.1:{PORT}", time.monotonic() + 400
            while not _healthy(url):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    sys.exit(log.read().decode()[-4000:])
                time.sleep(1)
            yield f"{url}/v1"
        finally:
            process.terminate()


def _healthy(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/health", retries=False, timeout=2).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def bare(url: str, samples: int) -> float:
    """Return the seconds of the clock that the requests take whose answers nobody reads."""
    pool = urllib3.PoolManager(maxsize=BARE, timeout=600)

    def ask(request: tuple[str, dict[str, Any]]) -> int:
        body = {"model": "base", "prompt": request[0], "return_token_ids": True, **request[1]}
        return len(pool.request("POST", f"{url}/completions", json=body).data)

    began = time.perf_counter()
    assert sum(1 for _ in in_flight(ask, iter(fields(samples)), BARE)) == 900
    return time.perf_counter() - began


def served_once(url: str, samples: int, concurrency: int, seed: int) -> dict[str, Any]:
    """Return a run's seconds of the clock and of this process, and what it found of noise."""
    resolved = study(samples, url, concurrency, seed)
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        with make(resolved) as engine:
            generation.decode(resolved, Path(folder), engine=engine)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        run = RunFolder(Path(folder))
        found = {key: run.manifest.get(key) for key in ("noise_shared", "noise_measured")}
        return {"seconds": seconds, "decoding": sum(run.timings("batches").values()), "cpu": cpu, **found}


if __name__ == "__main__":
    main()
