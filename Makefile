# Needs Python 3.11 or newer and make, nothing else.
#   make demo                                   everything, on the bundled tiny checkpoint
#   make eval-refcoco CHECKPOINT=... DATA=...   one benchmark; eval-all for all of them
#   make eval-touchstone CHECKPOINT=... DATA=... [JUDGE=gpt-4 BUDGET=60]   answers, then a judge;
#                                               its key is $OPENAI_API_KEY, its server $OPENAI_BASE_URL
#   make card CONFIG=configs/qwen-vl.toml DATA=...   what is missing of a row of the card
#   make demo GPUS=2, make eval-gqa GPUS=8 ...   with so many GPUs, or processes without one
#   make regression BASE=run CANDIDATE=run [MARGIN=0.5 INCONCLUSIVE=skip]   did a checkpoint get
#                                               worse? for a CI
#   make report RUNS="run ..."                  the card's tables with these runs
#   make leaderboard [RUNS="results"] [OUT=leaderboard]   a site of runs; open its index.html
#   make plots RUNS="run [run]" [OUT=plots] [FORMAT=pdf]   pictures for papers and pull requests
#   make browse RUNS="run [run]" [OUT=browser]   every sample, with its picture; open its index.html
#   make test, make test-all                    the tests without the slow ones; all tests
#   make lint, make check                       lint, format, types; the same with tests of imports, docs
#   make bench, make soak                       what is fast, and what survives random kills
#   make fuzz [N=500] [SEED=1] [ONLY=pictures] [WRITE=file.md]   damaged and hostile inputs; run
#                                               again, it continues where it stopped

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEVICE ?= auto
DTYPE  ?= auto
GPUS_OPTION = $(if $(GPUS),--gpus $(GPUS))
PARTIAL_OPTION = $(if $(PARTIAL),--allow-partial)
RUN = $(or $(OUT),runs/$(notdir $(patsubst %/,%,$(CHECKPOINT)))-$*)

.PHONY: demo card regression report leaderboard plots browse test test-all lint check bench soak fuzz format clean

demo: $(VENV)/installed
	$(BIN)/qwen-vl-eval demo --data demo-data --out demo-run $(GPUS_OPTION)

eval-%: $(VENV)/installed
	@test -n "$(CHECKPOINT)" || { echo "make $@: CHECKPOINT=folder or hub id is missing" >&2; exit 2; }
	@test -n "$(DATA)" || { echo "make $@: DATA=folder of the benchmarks' files is missing" >&2; exit 2; }
	$(BIN)/qwen-vl-eval run $* --model "$(CHECKPOINT)" --data "$(DATA)" --out "$(RUN)" \
	  --device $(DEVICE) --dtype $(DTYPE) $(if $(LIMIT),--limit $(LIMIT)) $(GPUS_OPTION) $(PARTIAL_OPTION)

eval-touchstone eval-touchstone_en eval-touchstone_cn: eval-%: $(VENV)/installed
	@test -n "$(CHECKPOINT)" || { echo "make $@: CHECKPOINT=folder or hub id is missing" >&2; exit 2; }
	@test -n "$(DATA)" || { echo "make $@: DATA=folder of the benchmarks' files is missing" >&2; exit 2; }
	$(BIN)/qwen-vl-eval run $* --model "$(CHECKPOINT)" --data "$(DATA)" --out "$(RUN)" \
	  --device $(DEVICE) --dtype $(DTYPE) $(if $(LIMIT),--limit $(LIMIT)) $(GPUS_OPTION) $(PARTIAL_OPTION)
	$(BIN)/qwen-vl-eval judge "$(RUN)" --data "$(DATA)" $(if $(JUDGE),--judge "$(JUDGE)") \
	  $(if $(JUDGE_PROMPT),--judge-prompt "$(JUDGE_PROMPT)") $(if $(BUDGET),--budget $(BUDGET)) \
	  $(if $(PRICE),--price $(PRICE))

card: $(VENV)/installed
	@test -n "$(CONFIG)" || { echo "make card: CONFIG=file of configs/ is missing" >&2; exit 2; }
	$(BIN)/qwen-vl-eval card "$(CONFIG)" $(if $(DATA),--data "$(DATA)") $(if $(OUT),--out "$(OUT)") \
	  $(if $(CHECKPOINT),--model "$(CHECKPOINT)") --device $(DEVICE) $(if $(DRY_RUN),--dry-run) $(GPUS_OPTION)

regression: $(VENV)/installed
	@test -n "$(BASE)" || { echo "make $@: BASE=folder of a run is missing" >&2; exit 2; }
	@test -n "$(CANDIDATE)" || { echo "make $@: CANDIDATE=folder of a run is missing" >&2; exit 2; }
	$(BIN)/qwen-vl-eval compare "$(BASE)" "$(CANDIDATE)" --gate $(if $(MARGIN),--margin $(MARGIN)) \
	  $(if $(INCONCLUSIVE),--inconclusive $(INCONCLUSIVE)) \
	  $(if $(MARKDOWN),--markdown "$(MARKDOWN)") $(if $(JUNIT),--junit "$(JUNIT)") $(if $(JSON),--json "$(JSON)")

report: $(VENV)/installed
	$(BIN)/qwen-vl-eval report $(or $(RUNS),demo-run)

leaderboard: $(VENV)/installed
	$(BIN)/qwen-vl-eval leaderboard $(or $(RUNS),results) $(if $(OUT),--out "$(OUT)")

plots: $(VENV)/installed
	$(BIN)/qwen-vl-eval plot $(or $(RUNS),demo-run) $(if $(OUT),--out "$(OUT)") $(if $(FORMAT),--format $(FORMAT))

browse: $(VENV)/installed
	$(BIN)/qwen-vl-eval browse $(or $(RUNS),demo-run) $(if $(OUT),--out "$(OUT)")

bench: $(VENV)/installed-dev
	$(BIN)/python tests/bench/bench_vqa.py
	$(BIN)/python tests/bench/bench_cider.py
	$(BIN)/python tests/bench/bench_engine.py
	$(BIN)/python tests/bench/bench_flips.py
	$(BIN)/python tests/bench/bench_launch.py
	$(BIN)/python tests/bench/bench_judge.py
	$(BIN)/python tests/bench/coverage.py

soak: $(VENV)/installed-dev
	$(BIN)/python tests/bench/soak.py

fuzz: $(VENV)/installed-dev
	nice -n 10 $(BIN)/python tests/fuzz/campaign.py $(if $(N),--inputs $(N)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(ONLY),--only "$(ONLY)") $(if $(WRITE),--write "$(WRITE)")

# The slow tests start processes and kill them, or run Java; CI runs them too.
test: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(BIN)/pytest -q tests/test_imports.py tests/test_docs.py

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo-data demo-run .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt eval/cli/start.py | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

# dashscope carries Qwen's published vocabulary; what it depends on is not needed.
$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,ray]'
	$(BIN)/pip install --disable-pip-version-check -q --no-deps 'dashscope>=2.0.2,<2.1'
	touch $@
