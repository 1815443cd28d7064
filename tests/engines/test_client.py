"""What a server may do to who asks it: its answers are bounded, no key is told or sent on, and its own words are quoted."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.untrusted import inert, inert_json, redacted
from tangeval.engines.client import Client, RequestError, is_url

pytest.importorskip("urllib3", reason="the package urllib3 of the dev extra is not installed")
KEY = "sk-secret-0123456789abcdef"
GOOD = {"choices": [{"text": "春", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}


@pytest.fixture
def answering():
    """A function: a server that answers all with this status, body and headers; it keeps the headers it was sent."""
    servers = []

    def start(status=200, body=GOOD, **headers):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.server.seen.append(dict(self.headers))
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_): ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.seen, server.url = [], f"http://127.0.0.1:{server.server_port}/v1"
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def asked(server, key=KEY, **more):
    client = Client(server.url, key, extra="server", **{"retries": 0, "timeout": 20} | more)
    return client.complete({"prompt": "x", "model": "m"})


def test_only_the_key_that_is_named_is_sent(answering, monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "private-to-me")
    server = answering()
    assert asked(server, f" {KEY}\n").choices[0].said == "春"
    assert server.seen[0]["authorization"] == f"Bearer {KEY}"
    assert "private-to-me" not in str(server.seen)


def test_a_proxy_of_the_environment_is_used_where_no_proxy_does_not_name_the_host(answering, monkeypatch):
    proxy, there = answering(), answering()
    monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    client = Client("http://nowhere.invalid/v1", None, extra="server", retries=0)
    assert client.complete({"prompt": "x"}).choices[0].said == "春"
    assert asked(there).choices[0].said == "春"
    assert (len(proxy.seen), len(there.seen)) == (1, 1)


def test_a_server_may_name_the_wait_but_none_of_hours(answering, monkeypatch):
    waits = []
    monkeypatch.setattr("tangeval.engines.client.time.sleep", waits.append)
    for told in (
        {"retry_after_ms": "250"},
        {"retry_after": "3"},
        {"retry_after": "86400"},
        {"retry_after": "soon"},
    ):
        with pytest.raises(RequestError, match="429"):
            asked(answering(429, **told), retries=1)
    assert waits[:3] == [0.25, 3, 60]
    assert 0 < waits[3] <= 0.5


def test_nothing_goes_on_to_another_host(answering):
    other = answering()
    server = answering(307, b"", location=f"{other.url}/completions")
    with pytest.raises(RequestError, match="it sends requests on to http"):
        asked(server)
    assert (len(server.seen), other.seen) == (1, [])


@pytest.mark.parametrize("key", ["sk-a\nb0123456789", "sk-鑰匙0123456789"])
def test_a_key_that_is_none_is_refused_and_not_told(key):
    with pytest.raises(TangevalError, match="no key has") as error:
        Client("http://h/v1", key, extra="server", retries=0)
    assert "0123456789" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "headers", "problem"),
    [
        (gzip.compress(b" " * 2**24), {"content_encoding": "gzip"}, "compressed"),
        (b" " * (65 * 2**20), {}, "more than 64 MiB"),
        (b"[" * 100_000, {}, "no JSON object"),
        (b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}, "no JSON object"),
        (b'{"a": ' * 100_000, {}, "no JSON object"),
    ],
    ids=["gzip", "bytes", "depth", "depth of choices", "objects"],
)
@pytest.mark.parametrize("status", [200, 400])
def test_answers_are_bounded(answering, body, headers, problem, status):
    server = answering(status, body, **headers)
    with pytest.raises(RequestError, match=problem if status == 200 or "JSON" not in problem else "400"):
        asked(server, retries=3)
    assert len(server.seen) == 1


def test_an_answer_without_an_end_is_bounded_in_time(answering, monkeypatch):
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr("tangeval.engines.client.time.monotonic", lambda: next(clock))
    with pytest.raises(RequestError, match="takes more than 30 s"):
        asked(answering(), timeout=30)


@pytest.mark.parametrize("status", [200, 400, 418, 500])
@pytest.mark.parametrize(
    "body", [{"error": {"message": "out of ink", "code": 7}}, {"error": "out of ink"}, {"object": "error", "message": "out of ink"}, {"detail": "out of ink"}]
)  # fmt: skip
def test_a_servers_own_error_is_quoted_whatever_the_status(answering, status, body):
    with pytest.raises(RequestError, match="out of ink"):
        asked(answering(status, body))


def test_what_a_server_tells_of_keys_is_left_out(answering, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "hidden-value-1")
    told = f"{KEY} hidden-value-1 http://me:pass@h/"
    reply = asked(answering(body={**GOOD, "choices": [{"text": told, "finish_reason": "stop"}]}))
    assert reply.choices[0].said == "*** *** http://***@h/"
    with pytest.raises(RequestError) as error:
        asked(answering(400, {"error": {"message": told}}))
    assert not any(secret in str(error.value) for secret in (KEY, "hidden-value-1", "pass"))


def test_what_is_printed_tells_no_secret_and_all_else(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh12345678")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsehood")
    for shown in (redacted, inert, inert_json):
        assert shown("a abcdefgh12345678 b") == "a *** b"
        assert (
            shown("http://u:p@h/v1?api_key=xyz&n=1 Bearer abcdefgh9")
            == "http://***@h/v1?api_key=***&n=1 Bearer ***"
        )
        assert shown("falsehood 春眠不覺曉 a@b http://h/x") == "falsehood 春眠不覺曉 a@b http://h/x"


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://h:99999/v1", "http://h:x/v1", "http://a b/v1", "http://h\n/v1", "ftp://h/v1", "http:///v1", "http://\udfff/v1"]
)  # fmt: skip
def test_an_address_that_is_none_is_no_url(address):
    assert not is_url(address)


@pytest.mark.parametrize("logprobs", [None, [], [{"token": "春"}], {"x": 1}, {"content": 5}, "no", 7])
def test_logprobs_of_any_shape_are_no_error(answering, logprobs):
    choice = {**GOOD["choices"][0], "logprobs": logprobs}
    assert asked(answering(body={**GOOD, "choices": [choice]})).choices[0].said == "春"
