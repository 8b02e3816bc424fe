"use strict";
// Which samples match, and in what order.

const ANY = "";
const WHOLE = -1; // in place of a task's number: all tasks
const OUTCOMES = { right: "right", partly: "partly right", wrong: "wrong", none: "not scored" };
const FLIPS = { changed: "changed", worse: "second is worse", better: "second is better", same: "the same" };
const ORDERS = { data: "as in the data", low: "lowest value first", high: "highest value first" };
if (two) Object.assign(ORDERS, { fall: "largest fall first", rise: "largest rise first" });

// Right is the full value; a graded metric has none.
function outcome(value, graded) {
  if (Number.isNaN(value)) return "none";
  if (value === 0) return "wrong";
  return value >= 1 && !graded ? "right" : "partly";
}

function flip(first, second) {
  if (Number.isNaN(first) || Number.isNaN(second)) return ANY;
  if (first === second) return "same";
  return second < first ? "worse" : "better";
}

function chosenTasks(wanted) {
  return wanted.task === WHOLE ? tasks : [tasks[wanted.task]];
}

// Places of the samples that match by the columns alone, in their order.
function select(wanted) {
  const found = [];
  const text = wanted.where === "ids" ? wanted.search.toLowerCase() : "";
  for (const task of chosenTasks(wanted)) {
    const { ids, values, groups } = task.index;
    const [first, second] = values;
    const kept = groups.filter((group) => wanted.groups.has(group.name));
    const codes = kept.map((group) => group.values.indexOf(wanted.groups.get(group.name)));
    if (kept.length < wanted.groups.size) continue;
    for (let n = 0; n < task.samples; n++) {
      if (wanted.outcomes[0] && outcome(first[n], task.graded) !== wanted.outcomes[0]) continue;
      if (wanted.outcomes[1] && outcome(second[n], task.graded) !== wanted.outcomes[1]) continue;
      if (wanted.flip) {
        const how = flip(first[n], second[n]);
        if (wanted.flip === "changed" ? how !== "worse" && how !== "better" : how !== wanted.flip) continue;
      }
      if (wanted.from !== null && !(first[n] >= wanted.from)) continue;
      if (wanted.to !== null && !(first[n] <= wanted.to)) continue;
      if (!kept.every((group, k) => group.codes[n] === codes[k])) continue;
      if (text && !ids[n].toLowerCase().includes(text)) continue;
      found.push(task.first + n);
    }
  }
  return sorted(Uint32Array.from(found), wanted.order);
}

function sorted(places, order) {
  if (order === "data") return places;
  const key = new Map();
  const sign = order === "low" || order === "fall" ? 1 : -1;
  for (const place of places) {
    const first = valueOf(place, 0);
    const value = order === "low" || order === "high" ? first : valueOf(place, 1) - first;
    key.set(place, Number.isNaN(value) ? Infinity : sign * value); // without a value: last
  }
  return places.sort((a, b) => key.get(a) - key.get(b) || a - b);
}

// Search the texts of these samples chunk by chunk; `found` is called with progress, and stops it by false.
async function searchTexts(places, text, found) {
  const needle = text.toLowerCase();
  const hit = new Map();
  const byChunk = new Map();
  for (const place of places) {
    const chunk = chunkOf(place);
    if (!byChunk.has(chunk.name)) byChunk.set(chunk.name, { chunk, of: [] });
    byChunk.get(chunk.name).of.push([place, chunk.at]);
  }
  let done = 0;
  for (const { chunk, of } of byChunk.values()) {
    const rows = await loadChunk(chunk);
    for (const [place, at] of of) hit.set(place, textsOf(rows[at]).some((each) => each.toLowerCase().includes(needle)));
    done++;
    const matching = () => places.filter((place) => hit.get(place));
    if (!found(done, byChunk.size, matching)) return;
  }
  if (!byChunk.size) found(1, 1, () => places);
}

function textsOf(row) {
  return [
    ...(row.texts ?? []).map((each) => each[1]),
    ...(row.references ?? []).map((each) => each[0]),
    ...(row.answers ?? []).map((each) => each?.text ?? ""),
  ];
}
