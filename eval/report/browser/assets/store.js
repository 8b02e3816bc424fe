"use strict";
// The page's data: scripts that are added when needed, since a page opened as a file may not fetch.
// Each puts one value under a name into window.parts; its texts are never used as markup.

const parts = (window.parts ??= {});
const { runs, tasks, pictures, longest } = parts.tasks;
const two = runs.length > 1;
const KEPT = 60; // chunks in memory at a time

let samples = 0; // of all tasks; a sample's place is its number among these
for (const task of tasks) {
  task.first = samples;
  task.index = null;
  samples += task.samples;
}

const loading = new Map(); // name -> promise
const chunks = new Map(); // name -> samples, the last used one at the end

function load(name, file) {
  if (!loading.has(name)) {
    const script = document.createElement("script");
    const done = new Promise((resolve, reject) => {
      const failed = () => reject(new Error(`data/${file} is missing or damaged`));
      script.addEventListener("load", () => (name in parts ? resolve(parts[name]) : failed()));
      script.addEventListener("error", failed);
    });
    script.src = `data/${file.split("/").map(encodeURIComponent).join("/")}`;
    loading.set(name, done.finally(() => {
      loading.delete(name);
      delete parts[name];
      script.remove();
    }));
    document.head.append(script);
  }
  return loading.get(name);
}

// A task's columns: ids, values of each run (NaN without one), groups.
async function loadIndex(task) {
  if (!task.index) {
    const found = await load(`${task.name}/index`, `${task.name}/index.js`);
    task.index ??= {
      ids: found.ids,
      starts: found.starts,
      values: found.values.map((each) => Float64Array.from(each, (value) => value ?? NaN)),
      groups: found.groups.map(([name, values, codes]) => ({ name, values, codes: Int32Array.from(codes) })),
    };
    for (const run of runs.keys()) task.index.values[run] ??= new Float64Array(task.samples).fill(NaN);
  }
  return task.index;
}

// The last entry of a sorted list that is at most a number.
function before(list, number, of = (each) => each) {
  let low = 0;
  let high = list.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (of(list[middle]) <= number) low = middle;
    else high = middle;
  }
  return low;
}

const withSamples = tasks.filter((task) => task.samples);

function taskOf(place) {
  return withSamples[before(withSamples, place, (task) => task.first)];
}

function chunkOf(place) {
  const task = taskOf(place);
  const number = before(task.index.starts, place - task.first);
  return { task, number, name: `${task.name}/${number}`, at: place - task.first - task.index.starts[number] };
}

// A sample if its chunk is loaded, else undefined.
function held(place) {
  const { name, at } = chunkOf(place);
  const found = chunks.get(name);
  if (!found) return undefined;
  chunks.delete(name);
  chunks.set(name, found);
  return found[at];
}

async function loadChunk({ task, number, name }) {
  const file = `${task.name}/chunk-${String(number).padStart(4, "0")}.js`;
  return chunks.get(name) ?? load(name, file);
}

async function loadSample(place) {
  const chunk = chunkOf(place);
  const found = await loadChunk(chunk);
  chunks.set(chunk.name, found);
  while (chunks.size > KEPT) chunks.delete(chunks.keys().next().value);
  return found[chunk.at];
}

function idOf(place) {
  const task = taskOf(place);
  return task.index.ids[place - task.first];
}

function valueOf(place, run) {
  const task = taskOf(place);
  return task.index.values[run][place - task.first];
}

function address(path) {
  return pictures + path.split("/").map(encodeURIComponent).join("/");
}

// A text with codes in place of invisible characters, such as direction marks.
function visible(text) {
  return text.replace(/\r\n/g, "\n").replace(/[^\P{C}\n\t]|[\p{Zl}\p{Zp}]/gu, (char) => {
    const code = char.codePointAt(0).toString(16).padStart(4, "0");
    return code.length > 4 ? `\\u{${code}}` : `\\u${code}`;
  });
}

function oneLine(text, most = 200) {
  const cut = text.length > most ? `${text.slice(0, most)}…` : text;
  return visible(cut.replace(/\s+/g, " ")).trim();
}

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value;
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A text of a run: its writing direction does not affect what is around it.
function isolated(text, properties = {}) {
  return element("bdi", properties, visible(text));
}
