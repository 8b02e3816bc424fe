"use strict";
// The page: the fields, the keys and the address decide what is shown.

const by = (id) => document.getElementById(id);
const MOST_VALUES = 500; // of a group that can be filtered by
const WAIT = 150; // milliseconds after the last letter or step before the page reacts

const list = new List(fillRow, (place) => showSoon(place));
let opened = 0; // number of the last request; late results of earlier ones are dropped
let turn = 0;
let facts = ""; // description of the samples in the list

function options(select, choices, chosen) {
  select.replaceChildren(...Object.entries(choices).map(([value, words]) => new Option(words, value)));
  select.value = chosen in choices ? chosen : ANY;
}

function later(work, wait = WAIT) {
  let timer;
  return (...all) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...all), wait);
  };
}

function number(field) {
  const value = field.valueAsNumber;
  return Number.isNaN(value) ? null : value;
}

// The values of the fields.
function wanted() {
  const groups = new Map();
  for (const select of by("groups").querySelectorAll("select")) {
    if (select.selectedIndex > 0) groups.set(select.group.name, select.group.values[select.value]);
  }
  return {
    task: Number(by("task").value),
    outcomes: [by("outcome-0").value, two ? by("outcome-1").value : ANY],
    flip: two ? by("flip").value : ANY,
    groups,
    order: by("order").value,
    from: number(by("from")),
    to: number(by("to")),
    where: by("where").value,
    search: by("search").value.trim(),
  };
}

function say(words) {
  facts = words;
  by("status").textContent = words;
}

function fail(error) {
  say(`${error.message}. Write the pages again`);
}

// Fields for the groups of a task, with the number of samples of each value.
function drawGroups(task) {
  const few = task ? task.index.groups.filter((group) => group.values.length <= MOST_VALUES) : [];
  by("groups").replaceChildren(...few.map((group, n) => {
    const counts = new Uint32Array(group.values.length);
    for (const code of group.codes) if (code >= 0) counts[code]++;
    const select = element("select", { id: `group-${n}` }, new Option("any", ANY));
    select.group = group;
    const order = [...group.values.keys()].sort((a, b) => (group.values[a] < group.values[b] ? -1 : 1));
    for (const code of order) {
      select.append(new Option(`${oneLine(group.values[code], 60)} (${counts[code].toLocaleString("en")})`, code));
    }
    const label = element("label", { htmlFor: select.id }, oneLine(group.name.replaceAll("_", " "), 40));
    return element("p", {}, label, select);
  }));
}

function drawOutcomes(chosen) {
  for (const run of runs.keys()) {
    const select = by(`outcome-${run}`);
    const counts = { right: 0, partly: 0, wrong: 0, none: 0 };
    for (const task of chosen) for (const value of task.index.values[run]) counts[outcome(value, task.graded)]++;
    const words = Object.entries(OUTCOMES).map(([key, text]) => [key, `${text} (${counts[key].toLocaleString("en")})`]);
    options(select, { [ANY]: "any", ...Object.fromEntries(words) }, select.value);
  }
}

function describe(chosen) {
  const differ = [...new Set(chosen.flatMap((task) => task.differ))];
  const value = chosen.length === 1 && chosen[0].metrics.length ? `Value: ${chosen[0].metrics[0]}. ` : "";
  const unverified = runs.map((name, run) => {
    const some = chosen.filter((task) => task.unverified[run]).map((task) => task.name);
    return some.length ? `Unverified in ${name}: ${some.join(", ")}. ` : "";
  }).join("");
  by("note").textContent = value + unverified + (differ.length ? `The two runs were not asked the same: other ${differ.join(", ")}.` : "");
}

// Switch to a task, or to all: load its columns, draw the fields that depend on it.
async function open(task) {
  const mine = ++opened;
  turn++;
  by("task").value = String(task);
  by("groups").replaceChildren();
  const chosen = chosenTasks({ task });
  say("Loading…");
  list.show(new Uint32Array());
  try {
    await Promise.all(chosen.map(loadIndex));
  } catch (error) {
    fail(error);
    return false;
  }
  if (mine !== opened) return false;
  drawGroups(task === WHOLE ? null : tasks[task]);
  drawOutcomes(chosen);
  describe(chosen);
  return true;
}

// The samples that match the fields, and one of them.
async function apply(place = list.place) {
  const mine = ++turn;
  const what = wanted();
  if (!chosenTasks(what).every((task) => task.index)) return; // it is still loading, and applied afterwards
  const found = select(what);
  by("progress").hidden = true;
  if (!what.search || what.where === "ids") {
    settle(found, place);
    return;
  }
  say("Searching…");
  by("progress").hidden = false;
  try {
    await searchTexts(found, what.search, (done, of, matching) => {
      if (mine !== turn) return false;
      by("progress").max = of;
      by("progress").value = done;
      if (done === of) {
        by("progress").hidden = true;
        settle(matching(), place);
      } else if (done % 40 === 1) list.show(matching(), place);
      return true;
    });
  } catch (error) {
    fail(error);
  }
}

function settle(view, place) {
  list.show(view, place);
  say(summary(view));
  if (view.length) show(list.place);
  else by("sample").replaceChildren(element("h2", { id: "title", tabIndex: -1 }, "No sample"), element("p", {}, "Nothing here is as the filters want it."));
  keep();
}

function summary(view) {
  let total = 0;
  const means = runs.map((name, run) => {
    let sum = 0;
    let count = 0;
    for (const place of view) {
      const value = valueOf(place, run);
      if (!Number.isNaN(value)) {
        sum += value;
        count++;
      }
    }
    return count ? `${two ? `${oneLine(name, 40)} ` : ""}${(sum / count).toFixed(4)}` : "";
  }).filter(Boolean);
  for (const task of chosenTasks(wanted())) total += task.samples;
  const mean = means.length && wanted().task !== WHOLE ? `; mean value ${means.join(", ")}` : "";
  return `${view.length.toLocaleString("en")} of ${total.toLocaleString("en")} samples${mean}`;
}

let awaited; // the sample to show, whatever arrives first

async function show(place) {
  awaited = place;
  let sample;
  try {
    sample = await loadSample(place);
  } catch (error) {
    fail(error);
    return;
  }
  if (awaited !== place || list.place !== place) return;
  const focus = by("sample").contains(document.activeElement) ? document.activeElement.id : "";
  by("sample").replaceChildren(...drawSample(place, sample, list.at, list.view.length));
  by("sample").scrollTop = 0;
  by("previous").addEventListener("click", () => list.choose(list.at - 1));
  by("next").addEventListener("click", () => list.choose(list.at + 1));
  if (focus) (by(focus)?.disabled === false ? by(focus) : by("title")).focus({ preventScroll: true });
}

const showSoon = (() => {
  const slow = later((place) => show(place), 30);
  return (place) => {
    slow(place);
    keep();
  };
})();

// The address: the sample and the filters that are set.
function linkTo(task, id) {
  return `#${new URLSearchParams({ task: task.name, id })}`;
}

const keep = later(() => {
  const what = wanted();
  const told = new URLSearchParams();
  if (what.task === WHOLE) told.set("all", "1");
  if (list.place !== undefined) {
    told.set("task", taskOf(list.place).name);
    told.set("id", idOf(list.place));
  } else if (what.task !== WHOLE) told.set("task", tasks[what.task].name);
  for (const name of ["outcome-0", "outcome-1", "flip", "from", "to", "search"]) if (by(name).value) told.set(name, by(name).value);
  if (what.order !== "data") told.set("order", what.order);
  if (what.search && what.where !== "ids") told.set("where", what.where);
  for (const [name, value] of what.groups) told.append("group", `${name}=${value}`);
  const now = `#${told}`;
  if (now !== location.hash) history.replaceState(null, "", now);
});

function clear() {
  for (const id of ["outcome-0", "outcome-1", "flip", "from", "to", "search"]) by(id).value = ANY;
  by("order").value = "data";
  by("where").value = "ids";
  for (const select of by("groups").querySelectorAll("select")) select.value = ANY;
}

// Show the sample and the filters of the address.
async function follow() {
  const told = new URLSearchParams(location.hash.slice(1));
  const number = Math.max(tasks.findIndex((task) => task.name === told.get("task")), 0);
  if (!(await open(told.get("all") ? WHOLE : number))) return;
  clear();
  for (const id of ["outcome-0", "outcome-1", "flip", "from", "to", "search", "order", "where"]) {
    if (!told.has(id) || (by(id).type === "number" && !Number.isFinite(Number(told.get(id))))) continue;
    by(id).value = told.get(id);
    if (by(id).selectedIndex === -1) by(id).selectedIndex = 0; // an address may have any value
  }
  for (const select of by("groups").querySelectorAll("select")) {
    const code = select.group.values.findIndex((value) => told.getAll("group").includes(`${select.group.name}=${value}`));
    if (code >= 0) select.value = code;
  }
  const task = tasks[number];
  const at = told.has("id") ? task.index.ids.indexOf(told.get("id")) : -1;
  const place = at < 0 ? undefined : task.first + at;
  if (place !== undefined && by("where").value === "ids" && !select(wanted()).includes(place)) clear();
  await apply(place);
  if (told.has("id") && at < 0) say(`No sample ${oneLine(told.get("id"), 60)} in ${task.name}. ${facts}`);
}

function start() {
  document.title = `Samples of ${runs.map((name) => oneLine(name, 60)).join(" and ")}`;
  by("runs").append(...runs.flatMap((name, n) => (n ? [" and ", isolated(name)] : [isolated(name)])));
  for (const each of document.querySelectorAll(".two")) each.hidden = !two;
  if (two) {
    by("filters").querySelector("label[for=outcome-0]").textContent = `Outcome, ${oneLine(runs[0], 30)}`;
    by("filters").querySelector("label[for=outcome-1]").textContent = `Outcome, ${oneLine(runs[1], 30)}`;
  }
  const names = tasks.map((task, n) => new Option(`${task.name} (${task.samples.toLocaleString("en")})`, n));
  by("task").append(...names);
  if (tasks.length > 1) by("task").append(new Option(`all benchmarks (${samples.toLocaleString("en")})`, WHOLE));
  options(by("outcome-0"), { [ANY]: "any", ...OUTCOMES }, ANY);
  options(by("outcome-1"), { [ANY]: "any", ...OUTCOMES }, ANY);
  options(by("flip"), { [ANY]: "any", ...FLIPS }, ANY);
  options(by("order"), ORDERS, "data");

  const typed = later(() => apply());
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("filters").addEventListener("input", async (event) => {
    if (event.target.id === "task") {
      if (await open(Number(by("task").value))) apply();
    } else if (event.target.tagName === "INPUT") typed();
    else apply();
  });
  by("reset").addEventListener("click", () => {
    clear();
    apply();
  });
  by("list").addEventListener("keydown", (event) => {
    if (event.key === "Enter") by("title")?.focus();
  });
  document.addEventListener("keydown", keys);
  window.addEventListener("hashchange", follow);
  follow();
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") {
    event.preventDefault(); // the browser would clear the search
    by("list").focus();
    return;
  }
  const field = event.target.closest("input, select, textarea");
  if (field || !by("letters").checked) return;
  const step = { j: 1, k: -1 }[event.key];
  if (step) list.choose(list.at + step);
  if (event.key === "/") {
    event.preventDefault();
    by("search").focus();
  }
}

start();
