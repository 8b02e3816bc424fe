"""The judges on loopback behave, and misbehave, as the official client finds real servers do."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import httpx2
import openai
import pytest
from batch_judge import BatchJudge
from judge_server import FAULTS, NONSENSE, FaultyJudge, digest_of

from eval.demo.judge import MARKER, JudgeServer, find_answers, judge
from touchstone.prompt import OWN
from touchstone.reply import fault_of, parse_reply

KEY = "sk-secret-123456"
BRACKETED = (  # headings in brackets, as other judges' prompts have them
    "[Picture]\n{told}\n\n[Asked]\n{question}\n\n"
    "[Start: assistant 1]\n{one}\n\n[End: assistant 1]\n\n"
    "[Start: assistant 2]\n{two}\n\n[End: assistant 2]\n\n"
    "[Task]\nRate both from 1 to 10, the one of assistant 1 first.\n\n"
)
OTHER = (
    "Rate these.\n\nPicture: {told}\n\nQuestion: {question}\n\nAnswer 1: {one}\n\nAnswer 2: {two}"
)
OURS = OWN.template.replace("{human_annotation}", "{told}").replace("{answer_1}", "{one}")
OURS = OURS.replace("{answer_2}", "{two}").replace("{prompt}", OWN.instruction)
TOLD = "The picture shows a red circle and a blue square.\nFirst picture: at the top left."


def message(one="The circle is red.", two="blue", template=BRACKETED, told=TOLD):
    return template.format(told=told, question="What color is the circle?", one=one, two=two)


def client_of(server, **options):
    options = {"api_key": KEY, "max_retries": 0, "timeout": 20} | options
    return openai.OpenAI(base_url=server.url, **options)


def ask(client, text="x", **options):
    messages = [{"role": "system", "content": "Judge."}, {"role": "user", "content": text}]
    options = {"model": "demo-rules", "temperature": 0} | options
    return client.chat.completions.create(messages=messages, **options)


def asked_of(server, text="x", **options):
    with client_of(server) as client:
        return ask(client, text, **options)


# The rules


@pytest.mark.parametrize("template", [BRACKETED, OURS, OTHER])
def test_the_better_answer_gets_the_better_score_in_either_order(template):
    """Whatever the prompt, and both orders agree."""
    first, second = judge(message(template=template))
    assert first > second
    assert (second, first) == judge(message("blue", "The circle is red.", template))
    assert {first * 2 % 1, second * 2 % 1} == {0}
    assert 1 <= second < first <= 10


@pytest.mark.parametrize("template", [BRACKETED, OURS])
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("", "红色的圆形"),
        ("2", "1"),
        ("a\n\nb: c", "Picture 1: red"),
        ("red", "(12,40)\n\n- a\n- b"),
    ],
)
def test_answers_are_found_whole(template, one, two):
    """Numbers, lists and blank lines within them are no markers."""
    answers, rest = find_answers(message(one, two, template))
    assert {"1": one, "2": two} == answers
    assert TOLD in rest


def test_chinese_overlaps_by_characters():
    told = "图中有一个红色的圆形。"
    first, second = judge(message("圆形是红色的。", "蓝色", told=told))
    assert first > second


def test_a_text_without_two_answers_gets_scores_all_the_same():
    """The same at every time, and not the same for all."""
    assert judge("anything") == judge("anything")
    assert len({judge(str(number)) for number in range(20)}) > 5
    for text in ("", "[Answer 1]\nred", "\ud800"):
        assert all(1 <= score <= 10 for score in judge(text))


@pytest.mark.parametrize(
    "line",
    [
        "## Answer 1",
        "<answer_2>",
        "【回答1】",
        "助手 2 的回答：",
        "**Answer 1**:",
        "### Assistant 2",
    ],
)
def test_many_ways_to_name_an_answer(line):
    assert MARKER.search(f"before\n{line}\nafter")


@pytest.mark.parametrize("line", ["Picture 1: x", "1", "Answer with 1 word", "scores for 1 and 2."])
def test_no_markers(line):
    assert MARKER.search(f"before\n{line}\nafter") is None


# The demo's server


def test_a_reply_is_what_the_protocol_has():
    """And nothing in it calls itself GPT."""
    with JudgeServer() as server:
        reply = asked_of(server, message())
    assert parse_reply(reply.choices[0].message.content) == judge(message())
    assert ("demo-rules-1", "fp_demo_1") == (reply.model, reply.system_fingerprint)
    assert reply.choices[0].finish_reason == "stop"
    usage = reply.usage
    assert usage.prompt_tokens > 50
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
    assert "gpt" not in reply.model_dump_json().lower()


def test_equal_requests_get_equal_replies_and_other_ids():
    with JudgeServer() as server:
        one, two = asked_of(server, message()), asked_of(server, message())
    assert one.choices == two.choices
    assert one.id != two.id


def test_the_seam():
    """A subclass answers as it likes."""

    class Kind(JudgeServer):
        def reply(self, request, headers):
            assert headers["Authorization"] == f"Bearer {KEY}"
            return super().reply(request | {"model": self.model}, headers)

    with Kind() as server:
        assert asked_of(server, model="any").choices[0].message.content


def test_many_at_once():
    """More connections than a listen backlog of five, none refused."""
    with FaultyJudge(latency_s=0.3) as server, ThreadPoolExecutor(64) as pool:
        clients = [client_of(server) for _ in range(64)]
        replies = list(pool.map(ask, clients, map(str, range(64))))
        for client in clients:
            client.close()
        assert 64 == len({reply.id for reply in replies})
        assert 20 < server.stats()["in_flight_max"] <= 64


def test_a_closed_server_ends_its_connections():
    """As one that is killed: the next request on a kept connection fails at once."""
    server = JudgeServer()
    with client_of(server) as client:
        ask(client)
        server.close()
        with pytest.raises(openai.APIConnectionError):
            ask(client)
    server.close()


# Faults, each as the client finds it


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("rate_limited", openai.RateLimitError, "rate_limit_exceeded"),
        ("quota", openai.RateLimitError, "insufficient_quota"),
        ("server_error", openai.InternalServerError, None),
        ("unavailable", openai.InternalServerError, None),
        ("bad_request", openai.BadRequestError, "invalid_prompt"),
        ("forbidden", openai.PermissionDeniedError, "unsupported_country"),
        ("not_found", openai.NotFoundError, "model_not_found"),
    ],
)
def test_error_statuses(fault, error, code):
    with FaultyJudge(**{fault: 1.0}) as server, client_of(server) as client:
        with pytest.raises(error) as caught:
            ask(client)
        assert code == caught.value.code
        assert not server.billed
        assert {str(caught.value.status_code): 1} == server.stats()["statuses"]


def test_errors_of_whoever_asks():
    """A wrong key, another model, a body without messages, an address that is none."""
    with FaultyJudge(key=KEY) as server:
        assert asked_of(server).choices
        with client_of(server, api_key="sk-other") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                ask(client)
            assert "sk-other" not in str(caught.value)
        with client_of(server) as client:
            with pytest.raises(openai.NotFoundError, match="`gpt-4` does not exist"):
                ask(client, model="gpt-4")
            with pytest.raises(openai.BadRequestError, match="no messages"):
                client.chat.completions.create(model="demo-rules", messages=[])
            with pytest.raises(openai.NotFoundError):
                client.models.list()


def test_a_slow_answer_is_billed_though_nobody_waits():
    """And a repeated Idempotency-Key then brings it, unbilled."""
    with (
        FaultyJudge(slow=1.0, slow_s=1.5, attempts=1, honours_key=True) as server,
        client_of(server, timeout=0.2) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            ask(client, extra_headers={"Idempotency-Key": "a"})
        assert 1 == server.billed.total()
        ask(client, extra_headers={"Idempotency-Key": "a"})
        assert (1, 1) == (server.billed.total(), server.stats()["replayed"])
        ask(client)
        assert 2 == server.billed.total()
        with pytest.raises(openai.BadRequestError, match="another request"):
            ask(client, "y", extra_headers={"Idempotency-Key": "a"})


def test_closing_the_server_ends_a_slow_answer():
    """The answer would take an hour; with the server closed, nothing is in flight any more."""
    with (
        FaultyJudge(slow=1.0, slow_s=3600) as server,
        client_of(server, timeout=0.2) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        ask(client)
    patience = time.monotonic() + 60
    while server.record.in_flight and time.monotonic() < patience:
        time.sleep(0.01)
    assert not server.record.in_flight


def test_a_connection_that_closes_is_not_billed():
    with FaultyJudge(closed=1.0) as server, client_of(server) as client:
        with pytest.raises(openai.APIConnectionError) as caught:
            ask(client)
        assert not isinstance(caught.value, openai.APITimeoutError)
        assert ({"0": 1}, 0) == (server.stats()["statuses"], server.billed.total())


def test_a_cut_body_is_billed():
    """The client raises what its transport does, no error of its own."""
    with FaultyJudge(truncated=1.0) as server, client_of(server) as client:
        with pytest.raises((httpx2.RemoteProtocolError, openai.APIConnectionError)):
            ask(client)
        assert 1 == server.billed.total()


def test_bodies_that_are_no_completion():
    with (
        FaultyJudge(invalid_json=["one"], html=["two"], no_choices=["three"]) as server,
        client_of(server) as client,
    ):
        raw = client.chat.completions.with_raw_response.create(
            model="demo-rules", messages=[{"role": "user", "content": "one"}]
        )
        assert 200 == raw.status_code
        with pytest.raises(json.JSONDecodeError):
            json.loads(raw.content)
        assert isinstance(ask(client, "two"), str)
        assert [] == ask(client, "three").choices


@pytest.mark.parametrize(
    ("fault", "content", "finish"),
    [
        ("nonsense", NONSENSE, "stop"),
        ("empty", "", "stop"),
        ("null", None, "stop"),
        ("refusal", None, "stop"),
        ("filtered", None, "content_filter"),
    ],
)
def test_replies_that_are_no_judgement(fault, content, finish):
    with FaultyJudge(**{fault: 1.0}) as server:
        choice = asked_of(server, message()).choices[0]
        assert (content, finish) == (choice.message.content, choice.finish_reason)
        assert (fault == "refusal") == bool(choice.message.refusal)
        assert fault_of(choice.message.content or "")
        assert 1 == server.billed.total()


def test_a_cut_reply():
    with FaultyJudge(length=1.0) as server:
        choice = asked_of(server, message()).choices[0]
    assert "length" == choice.finish_reason
    assert fault_of(choice.message.content)


def test_waits_that_the_server_asks_for():
    """Seconds, milliseconds or a date, and the official client heeds them."""
    date = formatdate(time.time() + 30, usegmt=True)
    for options, name, value in (
        ({"retry_after": 2}, "retry-after", "2"),
        ({"retry_after": date}, "retry-after", date),
        ({"retry_after_ms": 1500}, "retry-after-ms", "1500"),
    ):
        with FaultyJudge(rate_limited=1.0, **options) as server, client_of(server) as client:
            with pytest.raises(openai.RateLimitError) as caught:
                ask(client)
            assert value == caught.value.response.headers[name]
    with FaultyJudge(rate_limited=1.0, attempts=1, retry_after_ms=600) as server:
        began = time.monotonic()
        with client_of(server, max_retries=1) as client:
            ask(client)
        assert time.monotonic() - began > 0.55
        assert ["0", "1"] == [one.headers["X-Stainless-Retry-Count"] for one in server.requests]


def test_a_hostile_server_repeats_the_key():
    with FaultyJudge(echo_key=True, server_error=["bad"]) as server, client_of(server) as client:
        assert KEY in ask(client).choices[0].message.content
        with pytest.raises(openai.InternalServerError, match=KEY):
            ask(client, "bad")
        assert KEY not in json.dumps(server.stats())
        assert "Authorization" not in server.requests[0].headers


def test_drift_bias_and_names():
    with FaultyJudge(drift=-0.5, bias=1, reported="other-2", fingerprint="fp_2") as server:
        reply = asked_of(server, message())
    one, two = judge(message())
    assert (one + 0.5, two - 0.5) == parse_reply(reply.choices[0].message.content)
    assert ("other-2", "fp_2") == (reply.model, reply.system_fingerprint)
    with FaultyJudge(says="7 8\nwell") as server:
        assert (7, 8) == parse_reply(asked_of(server).choices[0].message.content)


def test_chance_is_the_seed_s_the_request_s_and_the_attempt_s():
    """The same requests in another order are hurt alike, another seed hurts others."""

    def hurt(seed, texts):
        with FaultyJudge(seed=seed, server_error=0.3, nonsense=0.2) as server:
            with client_of(server) as client:
                for text in texts:
                    with contextlib.suppress(openai.InternalServerError):
                        ask(client, text)
            assert 40 == len(server.requests)
            return {(one.digest, one.attempt): one.fault for one in server.requests}

    texts = [str(number % 20) for number in range(40)]
    first = hurt(1, texts)
    assert first == hurt(1, texts[::-1])
    assert first != hurt(2, texts)
    assert 4 < sum(fault == "server_error" for fault in first.values()) < 20
    assert {"", "server_error", "nonsense"} == set(first.values())
    by_attempt = [{k[0]: v for k, v in first.items() if k[1] == n} for n in (0, 1)]
    assert by_attempt[0] != by_attempt[1]


def test_requests_are_picked_by_number_and_by_text():
    with FaultyJudge(server_error=[1], nonsense=["red"], attempts=1) as server:
        with client_of(server) as client:
            assert NONSENSE == ask(client, "a red bus").choices[0].message.content
            with pytest.raises(openai.InternalServerError):
                ask(client)
            assert NONSENSE != ask(client, "a red bus").choices[0].message.content
        stats = server.stats()
    assert {"server_error": 1, "nonsense": 1} == stats["faults"]
    assert (3, 2, 1) == (stats["requests"], stats["billed_total"], stats["billed_twice"])
    body = server.requests[0].request
    assert 2 == server.billed[digest_of(body)]
    assert digest_of(body) == digest_of(dict(reversed(body.items())))


def test_unknown_faults_are_refused():
    with pytest.raises(AssertionError, match="rate_limit"):
        FaultyJudge(rate_limit=1.0)


def test_asynchronous_client():
    async def main(url):
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            told = [
                client.chat.completions.create(
                    model="demo-rules", messages=[{"role": "user", "content": text}]
                )
                for text in ("a", "b", "bad", "c")
            ]
            return await asyncio.gather(*told, return_exceptions=True)

    with FaultyJudge(server_error=["bad"], latency_s=0.1) as server:
        replies = asyncio.run(main(server.url))
        assert isinstance(replies[2], openai.InternalServerError)
        assert 3 == len({reply.id for reply in replies if not isinstance(reply, Exception)})
        assert server.stats()["in_flight_max"] > 1


# Files and batches


def lines_of(texts):
    return [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "demo-rules", "messages": [{"role": "user", "content": text}]},
        }
        for number, text in enumerate(texts)
    ]


def hand_in(client, content, **options):
    if not isinstance(content, bytes):
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert (len(content), "batch", "processed") == (file.bytes, file.purpose, file.status)
    assert content == client.files.content(file.id).content
    options = {"endpoint": "/v1/chat/completions", "completion_window": "24h"} | options
    return client.batches.create(input_file_id=file.id, **options)


def contents(client, file_id):
    text = client.files.content(file_id).text if file_id else ""
    return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


def test_a_batch_end_to_end():
    texts = [message(), "红\u2028色\r\n\x85", "", message("blue", "red")]
    with FaultyJudge() as server, client_of(server) as client:
        batch = hand_in(client, lines_of(texts), metadata={"run": "r1"})
        assert ("validating", {"run": "r1"}, 4) == (
            batch.status,
            batch.metadata,
            batch.request_counts.total,
        )
        done = client.batches.retrieve(batch.id)
        assert ("completed", 4, 0) == (
            done.status,
            done.request_counts.completed,
            done.request_counts.failed,
        )
        assert done.error_file_id is None
        assert done.completed_at >= done.in_progress_at >= done.created_at
        found = contents(client, done.output_file_id)
        assert {f"request-{number}" for number in range(4)} == found.keys()
        body = found["request-0"]["response"]["body"]
        assert 200 == found["request-0"]["response"]["status_code"]
        alone = ask(client, message()).choices[0].message.content
        assert alone == openai.types.chat.ChatCompletion(**body).choices[0].message.content
        assert 5 == server.billed.total()
        assert "batch_output" == client.files.retrieve(done.output_file_id).purpose
        client.files.delete(done.output_file_id)
        with pytest.raises(openai.NotFoundError):
            client.files.content(done.output_file_id)


def test_batches_take_as_many_polls_as_told():
    with FaultyJudge(polls=2) as server, client_of(server) as client:
        batch = hand_in(client, lines_of("a"))
        found = [client.batches.retrieve(batch.id).status for _ in range(4)]
    assert ["in_progress", "in_progress", "completed", "completed"] == found


def test_batches_are_listed_newest_first_by_the_page():
    with BatchJudge() as server, client_of(server) as client:
        made = [hand_in(client, lines_of("a")).id for _ in range(5)]
        page = client.batches.list(limit=2)
        assert (made[:2:-1], True) == ([batch.id for batch in page.data], page.has_more)
        assert made[::-1] == [batch.id for batch in client.batches.list(limit=2)]
        assert "validating" == page.data[0].status
        assert 5 == len(list(client.files.list()))


@pytest.mark.parametrize("ends", ["failed", "expired", "cancelled"])
def test_batches_that_end_otherwise(ends):
    """Of one that expires or is cancelled half is done; of one that fails nothing."""
    with FaultyJudge(batch_ends=ends) as server, client_of(server) as client:
        batch = client.batches.retrieve(hand_in(client, lines_of("abcd")).id)
        assert ends == batch.status
        assert getattr(batch, f"{ends}_at")
        output = contents(client, batch.output_file_id)
        errors = contents(client, batch.error_file_id)
        if ends == "failed":
            assert batch.errors.data[0].code
            assert not output
            assert not errors
            assert not server.billed
        else:
            assert (["request-0", "request-1"], ["request-2", "request-3"]) == (
                list(output),
                list(errors),
            )
            assert errors["request-2"]["response"] is None
            assert f"batch_{ends}" == errors["request-2"]["error"]["code"]
            assert 2 == server.billed.total()


def test_batches_with_holes_errors_and_nonsense():
    with (
        FaultyJudge(batch_left_out=[0], batch_errors=["bad"], nonsense=["odd"]) as server,
        client_of(server) as client,
    ):
        lines = lines_of(["a", "bad", "odd", "d"])
        lines[3]["body"]["model"] = "gpt-4"
        batch = client.batches.retrieve(hand_in(client, lines).id)
        output = contents(client, batch.output_file_id)
        errors = contents(client, batch.error_file_id)
        assert ["request-2"] == list(output)
        choice = output["request-2"]["response"]["body"]["choices"][0]
        assert NONSENSE == choice["message"]["content"]
        assert {"request-1": 500, "request-3": 404} == {
            name: line["response"]["status_code"] for name, line in errors.items()
        }
        assert (1, 2) == (batch.request_counts.completed, batch.request_counts.failed)
        assert 1 == server.billed.total()


def test_inputs_of_a_batch_that_are_wrong():
    """As real servers do, the batch fails with the line's number."""
    lines = lines_of("ab")
    twice = [lines[0], lines[1] | {"custom_id": "request-0"}]
    elsewhere = [lines[0], lines[1] | {"url": "/v1/embeddings"}]
    with BatchJudge() as server, client_of(server) as client:
        for content, code in (
            (twice, "duplicate_custom_id"),
            (elsewhere, "invalid_url"),
            (json.dumps(lines[0]).encode() + b"\n{", "invalid_json_line"),
        ):
            batch = client.batches.retrieve(hand_in(client, content).id)
            assert ("failed", code, 2) == (
                batch.status,
                batch.errors.data[0].code,
                batch.errors.data[0].line,
            )
        assert "failed" == client.batches.retrieve(hand_in(client, b"").id).status
        with pytest.raises(openai.BadRequestError, match="completion_window"):
            hand_in(client, lines, endpoint="/v1/embeddings")
        with pytest.raises(openai.NotFoundError, match="No such File"):
            client.batches.create(
                input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h"
            )
        with pytest.raises(openai.NotFoundError):
            client.batches.retrieve("batch_x")


def test_a_batch_can_be_cancelled():
    with BatchJudge(polls=5) as server, client_of(server) as client:
        batch = hand_in(client, lines_of("ab"))
        assert "cancelled" == client.batches.cancel(batch.id).status
        assert "cancelled" == client.batches.retrieve(batch.id).status


# As a process


def test_as_a_process():
    """It outlives whoever asks it, and tells what it billed."""
    command = [sys.executable, Path(__file__).with_name("judge_server.py")]
    options = ["--latency", "0.05", "--server-error", "1", "--nonsense", "red", "--key", KEY]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            assert NONSENSE == ask(client, "red").choices[0].message.content
            with pytest.raises(openai.InternalServerError):
                ask(client, "a")
            ask(client, "a")
        with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
            stats = json.load(answer)
        assert {"200": 2, "500": 1} == stats["statuses"]
        assert 2 == stats["billed_total"] == sum(stats["billed"].values())
    finally:
        process.kill()
        process.communicate()


def test_every_fault_is_an_option():
    told = subprocess.run(
        [sys.executable, Path(__file__).with_name("judge_server.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(f"--{fault.replace('_', '-')}" in told for fault in FAULTS)
