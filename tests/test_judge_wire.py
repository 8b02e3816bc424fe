"""What goes over the wire to a judge: where to, how long, how much, and in which form."""

import gzip
import json
import socket

import pytest
from judge_server import Answering, FaultyJudge, Raw
from judging import KEY, MODEL, PRICED, beside, judge_few, lines, spending, table

from eval.client.client import Client
from eval.client.network import find_proxy, is_loopback
from eval.client.server import Server
from eval.demo.judge import Response
from eval.errors import JudgeError
from touchstone.prompt import OWN

CHAT = "POST /v1/chat/completions"
ONE = ("--concurrency", 1)
MESSAGES = OWN.messages("a", "b", "c", "d")
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
NOWHERE = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in (*VARIABLES, *map(str.upper, VARIABLES), *CERTIFICATES, "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def target(tmp_path):
    return table(tmp_path / "answers.tsv", 3)


def judged(target):
    """Replies in the ledger."""
    return [line for line in lines(beside(target)) if "judged" in line]


def completion(content, **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, **more}
    return Response({"object": "chat.completion", "model": "m", "choices": [choice]})


# Where to


@pytest.mark.case("hostile/18")
@pytest.mark.parametrize(
    ("status", "place"),
    [
        *((status, "OTHER/chat/completions") for status in (301, 302, 303, 307, 308)),
        (307, "/v1/elsewhere"),
        (308, "file:///etc/passwd"),
    ],
)
def test_a_redirect_is_refused(target, status, place):
    """Nothing goes to a server that nobody named, not even on this host; one request is sent."""
    with FaultyJudge() as other:
        place = place.replace("OTHER", other.url)
        answer = Response(b"", status, {"Location": place, "x-should-retry": "true"})
        with Answering(answer) as server:
            done = judge_few(target, server)
            assert (2, 1) == (done.returncode, server.record.paths.total())
        assert 0 == other.record.paths.total()
    assert f"127.0.0.1 redirects to {place} (HTTP {status})" in done.stderr
    assert [] == judged(target)


def test_a_redirect_shows_no_key(target):
    """A server may put the key into the address that it names."""
    with Answering(Response(b"", 307, {"Location": f"http://judge.test/{KEY}"})) as server:
        done = judge_few(target, server)
    assert "redirects to http://judge.test/[key]" in done.stderr
    assert KEY not in done.stderr + beside(target).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("127.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("128.0.0.1", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("", False),
        (None, False),
    ],
)
def test_what_is_this_machine(host, here):
    """Its names and addresses, however they are written."""
    assert here == is_loopback(host)


@pytest.mark.case("environment/04")
@pytest.mark.parametrize("proxy", [NOWHERE, "socks5://127.0.0.1:1080", "nonsense://"])
def test_no_proxy_is_used_for_this_machine(target, proxy, monkeypatch):
    """Whatever the environment says, and whether or not it names exceptions."""
    for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "elsewhere.test")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")  # not needed without TLS
    with FaultyJudge() as server:
        done = judge_few(target, server)
        assert (0, 6) == (done.returncode, len(server.requests)), done.stderr
    assert find_proxy("https://[::1]:8000/v1") is None


def test_a_proxy_is_used_elsewhere_and_named(target, monkeypatch):
    """With its credentials, which appear nowhere; an error says through what it went."""
    with FaultyJudge(forbidden=[6]) as server:
        port = server.url.split(":")[2].removesuffix("/v1")
        monkeypatch.setenv("http_proxy", f"http://user:passw0rd@127.0.0.1:{port}")
        url = "http://judge.test/v1"
        done = judge_few(target, url, "--yes")
        assert (0, 6) == (done.returncode, len(server.requests)), done.stderr
        assert all(one.headers["Host"] == "judge.test" for one in server.requests)
        assert all("Proxy-Authorization" in one.headers for one in server.requests)
        other = ("--ledger", target.parent / "other", "--out", target.parent / "out", "--yes")
        done = judge_few(target, url, *other)
    proxy = f"the proxy http://127.0.0.1:{port} (http_proxy)"
    assert f"judge.test through {proxy} answers 403" in done.stderr
    monkeypatch.setenv("NO_PROXY", "judge.test")
    assert find_proxy(url) is None
    assert "passw0rd" not in done.stderr + beside(target).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HTTP_PROXY", "http://user:passw0rd@127.0.0.1:9", "http://127.0.0.1:9 (HTTP_PROXY)"),
        ("ALL_PROXY", "socks5://user:passw0rd@127.0.0.1:1080", "(ALL_PROXY)"),
        ("all_proxy", "socks://user:passw0rd@127.0.0.1:1080", "all_proxy: a proxy of the kind"),
        ("http_proxy", "http://passw0rd@[127.0.0.1", "http_proxy: not a proxy's URL"),
        ("http_proxy", "http://passw0rd:99999", "http_proxy: not a proxy's URL"),
        ("http_proxy", "http://", "http_proxy: not a proxy's URL"),
        ("http_proxy", "ftp://passw0rd/", "http_proxy: a proxy of the kind 'ftp'"),
    ],
)
def test_a_proxy_that_cannot_be_used(target, variable, value, message, monkeypatch):
    """A plain error that names the variable and no credentials, also without SOCKS' package."""
    monkeypatch.setenv(variable, value)
    done = judge_few(target, "http://judge.test/v1", "--yes")
    assert (2, True) == (done.returncode, message in done.stderr), done.stderr
    assert "passw0rd" not in done.stderr
    assert [] == judged(target)


@pytest.mark.parametrize("variable", CERTIFICATES)
@pytest.mark.parametrize("content", [None, "no certificates"])
def test_certificates_that_cannot_be_read(target, variable, content, monkeypatch):
    """A plain error that names variable and file; nothing is asked."""
    file = target.parent / "certificates.pem"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    monkeypatch.setenv(variable, str(file))
    done = judge_few(target, "https://127.0.0.1:9/v1")
    said = f"{variable}: the certificates cannot be read: {file}"
    assert (2, True) == (done.returncode, said in done.stderr), done.stderr


def test_tls_to_a_plain_port_and_a_host_that_cannot_be(target):
    """Neither is more than a connection that fails."""
    with FaultyJudge() as server:
        done = judge_few(target, server.url.replace("http:", "https:"))
        assert (2, True) == (done.returncode, "no connection to 127.0.0.1: [SSL" in done.stderr)
    done = judge_few(target, f"http://{'a' * 70}.test/v1", "--yes")
    assert (2, True) == (done.returncode, "no connection to aaa" in done.stderr), done.stderr


def test_a_server_at_an_ipv6_address(target):
    """Its address is written in brackets."""
    try:
        with socket.socket(socket.AF_INET6) as free:
            free.bind(("::1", 0))
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    done = judge_few(target, f"http://[::1]:{port}/v1")
    assert (2, True) == (done.returncode, "no connection to ::1: " in done.stderr), done.stderr


# Azure


@pytest.mark.parametrize("path", ["", "/", "/chat/completions"])
def test_a_deployment_of_azure(target, path):
    """Its version in every request, its key in a header of its own, and both nowhere else."""
    place = "/openai/deployments/my-gpt-4"

    class Azure(FaultyJudge):
        def respond(self, method, where, headers, body):
            self.record.paths[where] += 1
            assert "Authorization" not in headers
            assert KEY == headers["Api-Key"]
            return super().respond(method, where.replace(place, "/v1"), headers, body)

    with Azure() as server:
        root = server.url.removesuffix("/v1")
        url = f"{root}{place}{path}?api-version=2024-10-21"
        done = judge_few(target, url)
        assert done.returncode == 0, done.stderr
        asked = f"{place}/chat/completions?api-version=2024-10-21"
        assert 6 == server.record.paths[asked] == len(server.requests)
        done = judge_few(target, url, "--batch", "--ledger", target.parent / "other")
        assert (2, True) == (done.returncode, "--batch: Azure's batches" in done.stderr)
    assert KEY not in beside(target).read_text(encoding="utf-8")


def test_what_azure_is_known_by():
    """Its hosts, or the path of a deployment."""
    hosts = ("my.openai.azure.com/openai/v1", "x.cognitiveservices.azure.com/openai/deployments/d")
    assert all(Server("m", f"https://{host}").azure for host in hosts)
    assert not Server("m", "https://openai.azure.com.example/v1").azure


def test_the_query_of_any_address_is_kept(target):
    """As it is part of who judges, another query is another judge."""
    with FaultyJudge() as server:
        assert judge_few(target, f"{server.url}?route=a%20b&x=").returncode == 0
        assert 6 == server.record.paths[CHAT]
        other = ("--out", target.parent / "other")
        assert judge_few(target, f"{server.url}?route=c", *other).returncode == 0
        assert 12 == len(server.requests)
    assert "?route=a%20b&x=" in judged(target)[0]["judge"]["base_url"]
    client = Client(Server(MODEL, "http://127.0.0.1:9/v1?route=a%20b&x="), KEY)
    assert {"route": "a b", "x": ""} == client.api.default_query
    client.close()


@pytest.mark.parametrize("name", ["key", "api_key", "apikey", "subscription-key", "sig", "code"])
def test_an_address_with_a_key_in_its_query_is_refused(target, name):
    """It would stand in files; it is not repeated."""
    done = judge_few(target, f"http://127.0.0.1:9/v1?api-version=1&{name}=passw0rd")
    assert (2, True) == (done.returncode, f"leave out the query parameter '{name}'" in done.stderr)
    assert "passw0rd" not in done.stderr


# How long


@pytest.mark.case("hostile/30")
@pytest.mark.parametrize(
    "answer",
    [
        Raw({}, pieces=(b"HTTP/1.1 200 OK\r\n", b"X-Header: a\r\n"), pause_s=0.1, endless=True),
        Raw({}, pieces=(b"HTTP/1.1 200 OK\r\n\r\n", b" "), pause_s=0.1, endless=True),
        Raw({}, pieces=(b"HTTP/1.1 100 Continue\r\n\r\n",), pause_s=0.05, endless=True),
        Raw({}, pieces=(b"",), pause_s=0.1, endless=True),
    ],
    ids=["headers", "body", "interim answers", "silence"],
)
def test_the_time_is_that_of_the_whole_reply(answer):
    """Headers, body and interim answers together; sent slowly, none of them holds a request."""
    with Answering(answer) as server:
        client = Client(Server(MODEL, server.url), KEY, 0.5)
        with pytest.raises(Exception, match=r"no whole answer in 0\.5 s") as caught:
            client.ask(MESSAGES)
        assert caught.value.paid
        client.close()


def test_a_server_that_takes_nothing(tmp_path):
    """Connecting and sending are within the time, too."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        client = Client(Server(MODEL, url), KEY, 0.5)
        with pytest.raises(Exception, match=r"no whole answer in 0\.5 s"):
            client.ask(OWN.messages("a" * 20_000_000, "b", "c", "d"))
        client.close()


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e9", "0", "-1"])
def test_a_time_that_is_none_is_refused(target, seconds):
    """Before anything is asked."""
    with FaultyJudge() as server:
        done = judge_few(target, server, "--timeout", seconds)
        assert (2, 0) == (done.returncode, len(server.requests))


# How much


GOOD = completion("8 7").body
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (completion("x" * 2_000_000), "a reply of over 1,048,576 bytes"),
        (Raw({}, pieces=(ENDLESS, b"10000\r\n" + b" " * 65536 + b"\r\n"), endless=True), "of over"),
        (
            Raw({}, pieces=(b"HTTP/1.1 103 A\r\nX: " + b"a" * 60000 + b"\r\n\r\n",), endless=True),
            "no e",
        ),
        (Raw({}, pieces=(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 500_000,)), "cut off by 127.0.0.1"),
        (Raw({}, pieces=(b"\0\1SSH-2.0\r\n",)), "cut off by 127.0.0.1"),
        (
            Response(gzip.compress(b" " * (1 << 26)), headers={"Content-Encoding": "gzip"}),
            "unpacked",
        ),
        (Response(GOOD, headers={"Content-Encoding": "gzip"}), "cannot be unpacked"),
        (Response(gzip.compress(GOOD)[:-9], headers={"Content-Encoding": "gzip"}), "breaks off"),
        (Response(b"[" * 100_000), r"no chat completion: '\[\[\["),
        (Response(b'{"choices":' * 5000 + b"1" + b"}" * 5000), "no chat completion"),
        (Response(b'{"choices":[{"message":{"content":"\\ud800 7"}}]}'), "no chat completion"),
        (Response(GOOD.decode().encode("utf-16")), "no chat completion"),
        (Response(b"", 204), "no chat completion: ''"),
        (completion(5), "no chat completion"),
        (completion([{"type": "text", "text": 5}]), "no chat completion"),
    ],
    ids=range(15),
)
def test_an_answer_without_bounds_or_sense(answer, message):
    """It is no answer, may have been billed, and takes neither memory nor the process."""
    with Answering(answer) as server:
        client = Client(Server(MODEL, server.url), KEY, 20.0)
        with pytest.raises(Exception, match=message) as caught:
            client.ask(MESSAGES)
        assert caught.value.paid
        client.close()


# In which form


@pytest.mark.case("environment/14")
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (completion([{"type": "text", "text": "8 "}, {"type": "text", "text": "7"}]), "8 7"),
        (
            completion([{"type": "thinking", "thinking": [1]}, {"type": "text", "text": "8 7"}]),
            "8 7",
        ),
        (completion([{"type": "output_text", "text": "8 7"}]), "8 7"),
        (completion(["8 7"]), "8 7"),
        (completion([]), ""),
        (completion(None), ""),
        (Response(gzip.compress(GOOD), headers={"Content-Encoding": "gzip"}), "8 7"),
        (Response(GOOD, headers={"Content-Encoding": "br"}), "8 7"),
        (Response(GOOD, headers={"Content-Type": "text/plain; charset=nonsense"}), "8 7"),
        (
            Response(GOOD, headers={"Set-Cookie": "a=b; expires=\xff; Max-Age=1e999"}),
            "8 7",
        ),
        (Raw({}, pieces=(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD,)), "8 7"),
        (Raw({}, pieces=(b"HTTP/1.1 102 P\r\n\r\nHTTP/1.0 200 \r\n\r\n" + GOOD,)), "8 7"),
        (Response(b'{"choices":[{"message":{"content":"8 7"}}]}'), "8 7"),
    ],
    ids=range(13),
)
def test_a_reply_in_another_form(answer, text):
    """Text parts are joined; encodings, old protocols and odd headers change nothing."""
    with Answering(answer) as server:
        client = Client(Server(MODEL, server.url), KEY, 20.0)
        assert text == client.ask(MESSAGES).text
        client.close()


CHUNK = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "8 7"}}]}
EVENTS = b"data: " + json.dumps(CHUNK).encode() + b"\n\ndata: [DONE]\n\n"


@pytest.mark.case("environment/14")
@pytest.mark.parametrize(
    "answer",
    [
        Response(EVENTS, headers={"Content-Type": "text/event-stream; charset=utf-8"}),
        Response(EVENTS, headers={"Content-Type": "application/json"}),
        Response(CHUNK),
        Raw(
            {},
            pieces=(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", EVENTS),
            pause_s=0.05,
            endless=True,
        ),
    ],
    ids=["events", "events as JSON", "a chunk", "events without end"],
)
def test_a_server_that_streams(target, answer):
    """One request is sent and counted as paid; the error says what is wrong."""
    with Answering(answer) as server:
        done = judge_few(target, server, *PRICED)
        assert (2, 1) == (done.returncode, len(server.requests))
    assert "127.0.0.1 streams its replies although it was not asked to" in done.stderr
    told = lines(beside(target))
    assert list(spending(told))[-1] == told[0]["usd"] > 0


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 3},
        {"prompt_tokens": 10**30, "completion_tokens": 3},
        {"prompt_tokens": 1e300, "completion_tokens": 3},
        {"prompt_tokens": "10", "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": False},
        {"prompt_tokens": 300.0, "completion_tokens": None},
        {"prompt_tokens": []},
        [1],
        "usage",
        None,
    ],
    ids=range(10),
)
def test_a_usage_that_is_none_counts_at_its_most(usage):
    """Wrong types, and numbers that no request can have."""
    client = Client(Server(MODEL, NOWHERE), KEY)
    content = json.dumps({**completion("8 7").content, "usage": usage, "model": [5]}).encode()
    reply = client.parse(content)
    assert ("8 7", None, "") == (reply.text, reply.tokens, reply.model)
    client.close()


def test_what_stands_beside_an_empty_reply_is_shown(target):
    """A refusal, or the reasoning that took all tokens."""
    for name, text in (("refusal", "I won't."), ("reasoning_content", "The first ... 8 7")):
        message = {"role": "assistant", "content": None, name: text}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        with Answering(Response({"choices": [choice]})) as server:
            out = ("--out", target.parent / name, "--ledger", target.parent / f"{name}.jsonl")
            done = judge_few(target, server, *out)
        assert (3, 5) == (done.returncode, len(server.requests))
        assert f"an empty reply; its {name} is {text!r} (finish reason 'length')" in done.stderr


@pytest.mark.parametrize("name", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"])
def test_a_header_of_the_environment_that_cannot_be_sent(name, monkeypatch):
    """A plain error that names the variable."""
    monkeypatch.setenv(name, "X: é")
    with pytest.raises(JudgeError, match=f"{name}: only ASCII"):
        Client(Server(MODEL, NOWHERE), KEY)
