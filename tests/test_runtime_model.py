"""The native model against numbers recorded from the original implementation, in float32."""

import json
import shutil

import numpy as np
import pytest
import torch
from small import make_checkpoint
from torch.nn import functional as F

from eval.errors import UsageError
from eval.runtime import QwenVL, Sampling
from eval.runtime.config import QwenVLConfig
from eval.runtime.generation import choice_losses, losses_of, sample_tokens
from eval.runtime.language import Places, logn_scale, rotary_base, rotary_tables
from eval.runtime.model import QwenVLForCausalLM
from eval.runtime.pretrained import PretrainedQwenVL
from eval.runtime.visual import resize_positions, sincos_positions

LOGITS, FEATURES, SUM = 1e-3, 1e-4, 0.5  # largest differences that are allowed


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return QwenVL.from_pretrained(tiny_checkpoint)


def recorded(golden, name):
    return json.loads((golden / "parity" / f"{name}.json").read_text(encoding="utf-8"))


def check_logits(expected, logits):
    """A recorded summary of one row of logits (V,)."""
    top = torch.tensor(expected["top_ids"])
    assert expected["top_ids"][0] == int(logits.argmax())
    assert logits[top].tolist() == pytest.approx(expected["top_values"], abs=LOGITS)
    fixed = torch.tensor(expected["fixed_ids"])
    assert logits[fixed].tolist() == pytest.approx(expected["fixed_values"], abs=LOGITS)
    assert float(logits.double().sum()) == pytest.approx(expected["sum"], abs=SUM)
    assert float(logits.mean()) == pytest.approx(expected["mean"], abs=LOGITS)
    assert float(logits.std()) == pytest.approx(expected["std"], abs=LOGITS)
    assert float(logits.min()) == pytest.approx(expected["min"], abs=LOGITS)
    assert float(logits.logsumexp(0)) == pytest.approx(expected["logsumexp"], abs=LOGITS)


def test_position_rules(golden):
    """NTK alpha, rotary base and tables, log-n factors, for the tiny and the published sizes."""
    for rules in recorded(golden, "position_rules"):
        config = QwenVLConfig(
            seq_length=rules["seq_length"],
            kv_channels=rules["head_dim"],
            rotary_emb_base=rules["rotary_emb_base"],
        )
        for row in rules["rows"]:
            base = rotary_base(config, row["prefill_length"])
            assert base == pytest.approx(row["rotary_base"], rel=1e-8)
            slots = torch.tensor(row["positions"])
            cos, sin = rotary_tables(slots, base, rules["head_dim"])
            dims = torch.tensor(row["dims"])
            assert torch.allclose(cos[:, dims], torch.tensor(row["cos"]), atol=1e-5)
            assert torch.allclose(sin[:, dims], torch.tensor(row["sin"]), atol=1e-5)
        slots = torch.tensor([row["slot"] for row in rules["logn_query_scale"]])
        values = torch.tensor([row["value"] for row in rules["logn_query_scale"]])
        assert torch.allclose(logn_scale(slots, rules["seq_length"]), values, atol=1e-6)


@pytest.mark.parametrize(
    ("feature", "size"), [("features_224_0", 224), ("features_224_1", 224), ("features_448_0", 448)]
)
def test_vision_features(golden, tiny_checkpoint, tiny_checkpoint_448, feature, size):
    """The vision tower's output for an image, at the trained and at an interpolated grid."""
    arrays = np.load(golden / "parity" / "vision.npz")
    image = recorded(golden, "vision_index")[feature]
    model = QwenVL.from_pretrained(tiny_checkpoint if size == 224 else tiny_checkpoint_448)
    features = model.encode_images([golden / "parity" / image])
    assert np.abs(features[0].numpy() - arrays[feature]).max() <= FEATURES


@pytest.mark.parametrize("size", [224, 448])
def test_vision_stages(golden, tiny_checkpoint, tiny_checkpoint_448, size):
    """Every intermediate stage of the vision tower, so that a difference shows where it arises."""
    arrays = np.load(golden / "parity" / "vision.npz")
    model = QwenVL.from_pretrained(tiny_checkpoint if size == 224 else tiny_checkpoint_448)
    visual = model.model.transformer.visual
    modules = {
        "conv1": visual.conv1,
        "ln_pre": visual.ln_pre,
        "block0": visual.transformer.resblocks[0],
        "block1": visual.transformer.resblocks[1],
        "ln_kv": visual.attn_pool.ln_kv,
        "ln_q": visual.attn_pool.ln_q,
        "attn_pool": visual.attn_pool,
        "ln_post": visual.ln_post,
    }
    stages = {}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: stages.__setitem__(name, output)
        )
    model.encode_images([golden / "parity" / recorded(golden, "vision_index")["features_224_0"]])
    tokens = arrays[f"stage_{size}_token_positions"]
    queries = arrays["stage_query_positions"]
    for name, output in stages.items():
        if name == "conv1":
            output = output.flatten(2).transpose(1, 2)
        rows = output if output.ndim == 2 else output[0]
        places = queries if name in ("ln_q", "attn_pool", "ln_post") else tokens
        expected = arrays[f"stage_{size}_{name}"]
        assert np.abs(rows[places].numpy() - expected).max() <= FEATURES, name


def test_position_tables(golden, tiny):
    """The resampler's initial table and both interpolations to a 32 x 32 grid."""
    arrays = np.load(golden / "parity" / "vision.npz")
    visual = tiny.model.transformer.visual
    table = visual.attn_pool.pos_embed
    rows = arrays["resampler_pos_embed_row_ids"]
    assert np.abs(table[rows].numpy() - arrays["resampler_pos_embed_rows"]).max() <= 1e-6
    assert torch.allclose(sincos_positions(table.shape[1]), table, atol=1e-6)
    rows = arrays["to_1024_row_ids"]
    for name, stored in (("resampler_pos_embed", table), ("positional_embedding", None)):
        stored = visual.positional_embedding if stored is None else stored
        resized = resize_positions(stored, 32)[rows].numpy()
        assert np.abs(resized - arrays[f"{name}_to_1024_rows"]).max() <= 1e-5


def test_logits_of_single_prompts(golden, tiny, in_parity_folder):
    """The last position's logits below, at and above seq_length, with no, one and more images."""
    for case in recorded(golden, "lm_cases")["cases"]:
        if case["text"] is None:
            hidden, _ = tiny.model(torch.tensor([case["ids"]]))
            logits = tiny.model.lm_head(hidden[0, -1]).detach()
        else:
            logits = tiny.next_token_logits([case["text"]])[0]
        check_logits(case["last"], logits)


@torch.inference_mode()
def test_language_stages(golden, tiny, in_parity_folder):
    """Attention, MLP and residual of every layer, and the cached keys, for one image prompt."""
    arrays = np.load(golden / "parity" / "lm_stages.npz")
    case = next(c for c in recorded(golden, "lm_cases")["cases"] if c["name"] == "one_image")
    stages = {}
    handles = []

    def keep(name):
        return lambda _module, _inputs, output: stages.__setitem__(name, output)

    for number, block in enumerate(tiny.model.transformer.h):
        handles.append(block.attn.register_forward_hook(keep(f"attn_out{number}")))
        handles.append(block.mlp.register_forward_hook(keep(f"mlp_out{number}")))
        handles.append(block.register_forward_hook(keep(f"block{number}")))
    handles.append(tiny.model.transformer.ln_f.register_forward_hook(keep("ln_f")))
    ids, mask, features = tiny._batch(*tiny._read([case["text"]], None))
    _, cache = tiny.model(ids, mask, features)
    for handle in handles:
        handle.remove()
    stages["embed_after_splice"] = tiny.model.embed(ids, features)
    stages["cache_key0"] = cache.keys[0].transpose(1, 2)
    stages["cache_value0"] = cache.values[0].transpose(1, 2)
    positions = arrays["positions"]
    assert set(stages) == set(arrays) - {"positions"}
    for name, output in stages.items():
        assert np.abs(output[0, positions].numpy() - arrays[name]).max() <= LOGITS, name


@torch.inference_mode()
def test_left_padded_batches(golden, tiny, in_parity_folder):
    """Prefill and three cached steps of padded rows, below and above seq_length."""
    for batch in recorded(golden, "lm_left_pad")["batches"]:
        rows, paths = tiny._read([row["text"] for row in batch["rows"]], None)
        ids, mask, features = tiny._batch(rows, paths)
        assert batch["padded_length"] == ids.shape[1]
        hidden, cache = tiny.model(ids, mask, features)
        for number, row in enumerate(batch["rows"]):
            check_logits(row["last"], tiny.model.lm_head(hidden[number, -1]))
        for step, tokens in enumerate(batch["decode_tokens"]):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            hidden, cache = tiny.model(torch.tensor(tokens)[:, None], mask, cache=cache)
            for number, row in enumerate(batch["rows"]):
                check_logits(row["decode"][step], tiny.model.lm_head(hidden[number, -1]))


@torch.inference_mode()
def test_cached_decoding_across_seq_length(golden, tiny):
    """Cached steps keep the prefill's rotary base; a full prefill of the same ids differs."""
    for case in recorded(golden, "lm_decode")["cases"]:
        ids = torch.tensor([case["ids"]])
        length = case["prompt_length"]
        hidden, cache = tiny.model(ids[:, :length])
        for step in case["steps"]:
            while length < step["after_tokens"]:
                hidden, cache = tiny.model(ids[:, length : length + 1], cache=cache)
                length += 1
            check_logits(step["last"], tiny.model.lm_head(hidden[0, -1]))
        hidden, _ = tiny.model(ids[:, : case["full_prefill"]["length"]])
        check_logits(case["full_prefill"]["last"], tiny.model.lm_head(hidden[0, -1]))


@pytest.mark.parametrize("name", ["vqa", "docvqa", "caption", "grounding", "vqa_long_row"])
def test_greedy_generation(golden, tiny, in_parity_folder, name):
    """Ids and texts of the four task settings, as a batch of eight and one by one."""
    batches = recorded(golden, "generation_cases")["batches"]
    batch = next(b for b in batches if b["name"] == name)
    settings = (batch["max_new_tokens"], batch["min_new_tokens"])
    rows = batch["rows"]
    together = tiny.generate([row["prompt"] for row in rows], *settings)
    for row, answer in zip(rows, together, strict=True):
        filled = answer.ids + [151643] * (len(row["ids_batched"]) - len(answer.ids))
        assert row["ids_batched"] == filled
        text = answer.text.strip() if batch["strip"] else answer.text
        assert row["text_batched"] == text
    for row in rows:
        (answer,) = tiny.generate([row["prompt"]], *settings)
        assert row["ids_alone"] == answer.ids
        assert row["text_alone"] == (answer.text.strip() if batch["strip"] else answer.text)


def test_minimum_forbids_only_the_end(golden, tiny, in_parity_folder):
    """Without a minimum the recorded rows end earlier; no other row changes."""
    for batch in recorded(golden, "generation_cases")["batches"]:
        if not batch["effect_of_minimum"]:
            continue
        prompts = [row["prompt"] for row in batch["rows"]]
        free = tiny.generate(prompts, batch["max_new_tokens"])
        changed = {row["row"]: row["ids_without_minimum"] for row in batch["effect_of_minimum"]}
        for number, (row, answer) in enumerate(zip(batch["rows"], free, strict=True)):
            expected = changed.get(number, row["ids_batched"])
            assert expected == answer.ids + [151643] * (len(expected) - len(answer.ids))


def choice_prompt(template, record):
    hint = record["hint"] or "N/A"
    options = "\n".join(f"{'ABCDE'[n]}. {c}" for n, c in enumerate(record["choices"]))
    for value in (record["image"], hint, record["question"], options):
        template = template.replace("{}", value, 1)
    return template


def test_choice_losses(golden, tiny, in_parity_folder):
    """Loss of each option and the winner, of each recorded question alone."""
    cases = recorded(golden, "multiple_choice_cases")
    for case in cases["cases"]:
        prompt = choice_prompt(cases["prompt"], case["record"])
        options = [f" {letter}" for letter in "ABCDE"[: len(case["losses"])]]
        losses = tiny.choice_losses(prompt, options)
        assert case["losses"] == pytest.approx(losses, abs=LOGITS)
        assert case["prediction"] == losses.index(min(losses))


@pytest.mark.parametrize("name", ["batch_of_four", "batch_over_seq_length"])
def test_choice_losses_of_a_batch(golden, tiny, in_parity_folder, name):
    """All options of several questions as one batch; above seq_length they are no longer alone."""
    cases = recorded(golden, "multiple_choice_cases")
    batch = cases[name]
    rows, paths = [], []
    for record in batch["records"]:
        record = cases["cases"][record]["record"] if isinstance(record, int) else record
        (ids,), found = tiny._read([choice_prompt(cases["prompt"], record)], None)
        for letter in "ABCDE"[: len(record["choices"])]:
            rows.append([*ids, *tiny.tokenizer.encode(f" {letter}")])
            paths += found
    ids, mask, features = tiny._batch(rows, paths)
    losses = iter(choice_losses(tiny.model, ids, mask, features, [1] * len(rows)).exact)
    assert batch["padded_length"] == ids.shape[1]
    for expected, winner in zip(batch["losses"], batch["predictions"], strict=True):
        found = [next(losses) for _ in expected]
        assert expected == pytest.approx(found, abs=LOGITS)
        assert winner == found.index(min(found))


def test_bfloat16_choices_tie_as_in_the_original(golden, tiny_checkpoint, in_parity_folder):
    """The original's losses are steps of 1/16, so that near choices tie; ours are finer."""
    tiny = QwenVL.from_pretrained(tiny_checkpoint, dtype="bfloat16")
    template = recorded(golden, "multiple_choice_cases")["prompt"]
    cases = recorded(golden, "bf16_info")["multiple_choice"]
    for case in cases:
        options = [f" {letter}" for letter in "ABCDE"[: len(case["losses_bfloat16"])]]
        losses = tiny.rank(choice_prompt(template, case["record"]), options)
        assert case["losses_bfloat16"] == pytest.approx(losses.published, abs=0.25)
        assert losses.published == tuple(torch.tensor(losses.exact).bfloat16().tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_published_losses_are_those_of_the_original_s_cross_entropy(dtype):
    """Bit for bit: torch's own, in half precision, over a batch laid out as the original's."""
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(40, 6, 300, generator=generator)).to(dtype)
    ids = torch.randint(0, 300, (40, 6), generator=generator)
    whole = F.cross_entropy(logits.permute(0, 2, 1), ids, reduction="none")
    expected = [float(row[-3:].mean()) for row in whole]
    found = losses_of((row[-3:], mine[-3:]) for row, mine in zip(logits, ids, strict=True))
    assert expected == list(found.published)
    assert found.published != found.exact


def test_dialogues(golden, tiny, in_parity_folder):
    """Whole greedy dialogues: context ids, generated ids, replies."""
    for dialogue in recorded(golden, "chat_cases")["chat_greedy"]:
        history = []
        for turn in dialogue:
            assert turn["context_ids"] == tiny.chat_ids(turn["query"], history)
            reply = tiny.chat(turn["query"], history, max_new_tokens=turn["max_new_tokens"])
            assert turn["generated"] == reply.ids
            assert turn["response"] == reply.text
            history.append((turn["query"], reply.text))


def test_path_length_and_spelling_change_nothing(tiny, golden, tmp_path):
    """The text between the image tags never reaches the model, whatever its length."""
    source = (golden / "parity" / "images" / "street.jpg").read_bytes()
    deep = tmp_path.joinpath(*["d" * 100] * 4)
    deep.mkdir(parents=True)
    (deep / "street.jpg").write_bytes(source)
    (tmp_path / "s.jpg").write_bytes(source)
    long, short = (
        tiny.generate([f"<img>{path}</img>What is it? Answer:"], 10)[0]
        for path in (deep / "street.jpg", tmp_path / "s.jpg")
    )
    assert len(str(deep)) > 256
    assert short == long


def test_published_parameter_names(golden):
    """At the published config the model has exactly the 853 published names and shapes."""
    published = golden / "parity" / "published"
    keys = json.loads((published / "checkpoint_keys.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = QwenVLForCausalLM(QwenVLConfig.from_folder(published))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert keys["shapes"] == shapes
    assert keys["parameter_count"] == sum(p.numel() for p in model.parameters())
    assert not list(model.buffers())


def test_sampling_depends_on_its_seed_alone(tiny, in_parity_folder):
    """A sampled row is the same alone and among others, and differs by seed."""
    prompts = ["<img>images/street.jpg</img>What is it?", "<img>images/gray.png</img>Where?"]
    how = Sampling(top_p=0.9)
    together = tiny.generate(prompts, 8, sampling=how, seeds=[7, 8])
    alone = [
        tiny.generate([p], 8, sampling=how, seeds=[s])[0]
        for p, s in zip(prompts, (7, 8), strict=True)
    ]
    assert [a.ids for a in alone] == [t.ids for t in together]
    others = {
        tuple(tiny.generate(prompts[:1], 8, sampling=how, seeds=[s])[0].ids) for s in range(4)
    }
    assert len(others) > 1


def test_nucleus_of_one_is_greedy():
    """Where the best id alone reaches top_p, sampling is greedy; beyond, frequencies follow."""
    scores = torch.tensor([[0.0, 2.0, 1.0, -torch.inf]])

    def draw(how, seed):
        return int(sample_tokens(scores, how, [np.random.Generator(np.random.PCG64(seed))])[0])

    assert {1} == {draw(Sampling(top_p=0.3), seed) for seed in range(50)}
    assert {1} == {draw(Sampling(top_p=1.0, top_k=1), seed) for seed in range(50)}
    drawn = [draw(Sampling(top_p=1.0), seed) for seed in range(3000)]
    expected = torch.softmax(scores[0], 0)
    for token in range(4):
        assert drawn.count(token) / 3000 == pytest.approx(float(expected[token]), abs=0.03)


def test_transformers_loads_and_saves_the_model(tmp_path):
    """The model is a transformers model: from_pretrained and save_pretrained keep its weights."""
    folder = make_checkpoint(tmp_path / "small")
    ours = QwenVL.from_pretrained(folder)
    theirs = PretrainedQwenVL.from_pretrained(folder)
    theirs.save_pretrained(tmp_path / "saved")
    shutil.copy(folder / "qwen.tiktoken", tmp_path / "saved")
    again = QwenVL.from_pretrained(tmp_path / "saved")
    for name, weight in ours.model.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_empty_input(tmp_path):
    """No prompts give no answers; a prompt without a token, or no choice, is an error."""
    model = QwenVL.from_pretrained(make_checkpoint(tmp_path / "small"))
    assert [] == model.generate([], 3)
    assert (0, model.model.config.vocab_size) == tuple(model.next_token_logits([]).shape)
    assert (0, 256) == tuple(model.encode_images([]).shape[:2])
    assert model.chat_ids("hi") == model.chat_ids("hi", None)
    with pytest.raises(UsageError, match="prompt"):
        model.generate([""], 3)
    with pytest.raises(UsageError, match="choices"):
        model.choice_losses("a", [])
    with pytest.raises(UsageError, match="prompts: a list expected"):
        model.generate("a", 3)
    with pytest.raises(UsageError, match="images: a list expected"):
        model.encode_images("a.png")


def test_overflow_is_an_error_and_no_answer(tmp_path):
    """Where half precision overflows, nothing is generated from scores that are no numbers."""
    model = QwenVL.from_pretrained(make_checkpoint(tmp_path / "small"))
    with torch.no_grad():
        model.model.transformer.ln_f.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="no numbers"):
        model.generate(["a"], 3)
    with pytest.raises(ValueError, match="no numbers"):
        model.choice_losses("a", [" A", " B"])


def test_spread_over_devices(tmp_path, monkeypatch):
    """Behind accelerate's hooks, where each part moves its input to its device, answers are equal.

    There is one device here, so this shows that all travels through the hooks, not that it arrives.
    """
    from accelerate import dispatch_model

    model = QwenVL.from_pretrained(make_checkpoint(tmp_path / "small"))
    prompts = ["one", "another prompt"]
    expected = model.generate(prompts, 5)
    moved = []
    monkeypatch.setattr(Places, "to", lambda at, device, **_: moved.append(device) or at)
    parts = ("transformer.wte", "transformer.h.0", "transformer.h.1", "transformer.ln_f")
    device_map = dict.fromkeys((*parts, "transformer.visual", "lm_head"), "cpu")
    model.model = dispatch_model(model.model, device_map, force_hooks=True)
    assert expected == model.generate(prompts, 5)
    assert moved
