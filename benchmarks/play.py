"""How long the first character takes: `tangeval play` with the shipped model loaded.

    python -m benchmarks.play [--times 20] [--out results/bench/play.json]

Asks a server in this process for two endings of a couplet, again and again, over HTTP.
"""

import http.client
import json
import statistics
import threading
import time

from benchmarks.command import command_line
from tangeval.doors.playing.asking import opened
from tangeval.doors.playing.desk import Desk
from tangeval.doors.playing.server import Server
from tangeval.results.files import write_json

ASKED = {"checkpoints": ["base"], "couplet": "床前明月光，疑是地上霜。", "samples": 2}


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    desk = Desk(opened(None))
    desk.warm()
    with Server(desk) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = [asked(server) for _ in range(options.times)]
        server.shutdown()
    first, whole = (statistics.median(each) for each in zip(*found, strict=True))
    report = {
        "times": options.times,
        "first_seconds": first,
        "worst_first": max(f for f, _ in found),
        "whole_seconds": whole,
    }
    write_json(options.out, report)
    print(json.dumps(report))


def asked(server: Server) -> tuple[float, float]:
    """Return the seconds from the request to its first line, and to its end."""
    line, began = http.client.HTTPConnection("127.0.0.1", server.server_port), time.perf_counter()
    line.request("POST", f"/{server.secret}/write", json.dumps(ASKED), {"Content-Type": "application/json"})
    answer = line.getresponse()
    answer.readline()
    first = time.perf_counter() - began
    answer.read()
    return first, time.perf_counter() - began


if __name__ == "__main__":
    main()
