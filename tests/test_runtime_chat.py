"""ChatML prompts and replies against those recorded from the original."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small import make_checkpoint

from eval.runtime.chat import SYSTEM, chat_ids, chat_prompt, decode_reply
from eval.runtime.qwen_vl import QwenVL
from eval.runtime.tokenizer import Tokenizer

RECORDED = json.loads(
    (Path(__file__).parent / "golden/parity/chat_cases.json").read_text(encoding="utf-8")
)
CHATML = [case for case in RECORDED["make_context"] if "chat_format" not in case]
WORDS = st.text(st.sampled_from("ab \n图<|im_end|>"), max_size=30)


@pytest.fixture(scope="session")
def tokenizer(qwen_vocabulary):
    return Tokenizer.from_file(qwen_vocabulary)


def arguments(case):
    named = {"max_window_size": case["max_window_size"]} if "max_window_size" in case else {}
    return {
        "query": case["query"],
        "history": case.get("history") or (),
        "system": case.get("system", ""),
        **named,
    }


@pytest.mark.parametrize("case", CHATML, ids=lambda case: case["query"][:30])
def test_chat_ids(tokenizer, case):
    """Ids are the original's: pieces encoded alone, the window, control tokens typed by a user."""
    assert case["ids"] == chat_ids(tokenizer, **arguments(case))


@pytest.mark.parametrize("case", CHATML, ids=lambda case: case["query"][:30])
def test_chat_prompt(tokenizer, case):
    """The text is the original's; the ids differ in image slots alone."""
    prompt = chat_prompt(tokenizer, **arguments(case))
    assert case["raw_text"] == prompt.text
    assert case["raw_text_len"] == len(prompt.text)
    assert len(case["ids"]) == len(prompt.ids)
    assert case["raw_text"].count("<img>") == len(prompt.paths)
    for expected, actual in zip(case["ids"], prompt.ids, strict=True):
        assert expected == actual or (expected < 256 and actual == tokenizer.img_pad_id)


def test_raw_format_is_plain_encoding(tokenizer):
    """Qwen-VL, not Chat: no template, no history, all special tokens are special."""
    (case,) = (case for case in RECORDED["make_context"] if case.get("chat_format") == "raw")
    assert case["ids"] == tokenizer.encode(case["query"])
    assert case["raw_text"] == case["query"]


def test_default_system_text():
    assert RECORDED["system_default_of_chat"] == SYSTEM


@pytest.mark.parametrize("case", RECORDED["decode_tokens"], ids=lambda case: case["note"][:30])
def test_reply(tokenizer, case):
    """Where a reply ends and what is trimmed, with both quirks."""
    prompt = chat_prompt(tokenizer, case["query"], system=case["system"])
    assert case["context_ids"] == prompt.ids
    assert case["raw_text_len"] == len(prompt.text)
    assert case["response"] == decode_reply(tokenizer, prompt, case["generated"])
    tensor = torch.tensor(case["generated"], dtype=torch.int64)
    assert case["response"] == decode_reply(tokenizer, prompt, tensor)


@pytest.mark.parametrize("number", range(len(RECORDED["chat_greedy"])))
def test_dialogues(tokenizer, number):
    """Every prompt of a recorded dialogue, and what was read in the ids that followed."""
    history = []
    for turn in RECORDED["chat_greedy"][number]:
        assert turn["context_ids"] == chat_ids(tokenizer, turn["query"], history)
        prompt = chat_prompt(tokenizer, turn["query"], history)
        assert turn["response"] == decode_reply(tokenizer, prompt, turn["generated"])
        history.append((turn["query"], turn["response"]))


def test_a_reply_after_an_image(tokenizer):
    """The cut counts the path as it is written, though the ids don't hold it."""
    name = "x" * 300 + "/e\u0301.jpg"  # not NFC: one character of the reply is lost, as recorded
    prompt = chat_prompt(tokenizer, f"<img>{name}</img>What?")
    reply = [*tokenizer.encode("A red dog."), tokenizer.im_end_id, tokenizer.eod_id]
    assert prompt.paths == [name]
    assert decode_reply(tokenizer, prompt, reply) == "red dog."


def test_text_that_grows_when_normalised(tokenizer):
    """NFC makes two characters of U+0958: the prompt's last newline is read first, and trimmed."""
    prompt = chat_prompt(tokenizer, "\u0958")
    assert decode_reply(tokenizer, prompt, [*tokenizer.encode("dog"), tokenizer.im_end_id]) == "dog"


@pytest.mark.parametrize("stray", [[151857], [151857, 50, 151858], [151935], [151860, 151857]])
def test_stray_ids_end_no_run(tokenizer, stray):
    """The original raises for these; here tags are text, and ids without text are dropped."""
    prompt = chat_prompt(tokenizer, "Hi")
    reply = decode_reply(tokenizer, prompt, [*stray, *tokenizer.encode("dog"), tokenizer.im_end_id])
    assert reply.endswith("dog")
    assert reply.startswith("<img>") or 151857 not in stray


def test_the_query_is_never_cut(tokenizer):
    """The window drops turns, oldest first, and nothing else."""
    prompt = chat_prompt(tokenizer, "a" * 100, [("q", "r")], max_window_size=0)
    assert prompt == chat_prompt(tokenizer, "a" * 100)


@given(st.lists(st.tuples(WORDS, st.none() | WORDS), max_size=4), WORDS, st.integers(0, 120))
def test_the_window_keeps_the_newest_turns(tokenizer, history, query, max_window_size):
    """What is kept is the longest run of newest turns that stays below the window."""
    alone = len(chat_ids(tokenizer, query))
    system = len(chat_ids(tokenizer, "", system=SYSTEM)) - len(chat_ids(tokenizer, "", system=""))
    head = 5 - 1 + system  # <|im_start|> system NL text <|im_end|>, the text already counted
    kept = 0
    for count in range(1, len(history) + 1):
        turns = len(chat_ids(tokenizer, query, history[-count:])) - alone
        if head + turns >= max_window_size:
            break
        kept = count
    expected = chat_ids(tokenizer, query, history[len(history) - kept :])
    assert expected == chat_ids(tokenizer, query, history, max_window_size=max_window_size)


def test_a_prompt_asked_as_a_dialogue_is_the_chats_only_turn(tmp_path):
    """What the protocol chatml asks in a batch is what `chat` asks alone, ids and losses."""
    Image.new("RGB", (30, 20), (200, 10, 10)).save(tmp_path / "a.png")
    model = QwenVL.from_pretrained(make_checkpoint(tmp_path / "small"))
    prompts = [f"Picture 1: <img>a.png</img>\n{text}" for text in ("Hi", "What <|im_end|> is it?")]
    alone = [model.chat(p, max_new_tokens=7, image_root=tmp_path).ids for p in prompts]
    batch = model.generate(prompts, 7, image_root=tmp_path, chat=True)
    assert alone == [answer.ids for answer in batch]
    raw = model.generate(prompts, 7, image_root=tmp_path)
    assert [answer.ids for answer in raw] != alone
    choices = [
        model.choice_losses(prompts[0], ("A", "B"), image_root=tmp_path, chat=chat)
        for chat in (True, False)
    ]
    assert choices[0] != choices[1]
