"use strict";
// One sample: its picture with boxes, the question, the answers and the references.

const SVG = "http://www.w3.org/2000/svg";
const KINDS = ["predicted", "second"]; // of boxes, by run

function fillRow(row, place, sample) {
  const task = taskOf(place);
  const what = element("span", { class: "one" }, isolated(oneLine(idOf(place), 60), { class: "id" }));
  const said = element("span", { class: "both" });
  const texts = element("span", {}, what, said);
  let picture = element("span", { class: "thumb" });
  if (sample) {
    what.append(" ", isolated(oneLine(questionOf(sample))));
    if (sample.images) {
      picture = element("img", { class: "thumb", alt: "", decoding: "async", draggable: false });
      picture.dataset.src = address(sample.images[0]);
      picture.addEventListener("error", () => picture.replaceWith(element("span", { class: "thumb" })));
    }
  }
  for (const run of runs.keys()) {
    const one = element("span", { class: "one" }, mark(valueOf(place, run), task));
    if (sample) one.append(isolated(oneLine(answerOf(sample, run), 120)));
    said.append(one, " ");
  }
  row.replaceChildren(picture, texts);
}

function questionOf(sample) {
  const texts = sample.texts ?? [];
  const found = texts.find(([name]) => name === "question") ?? texts[0];
  return found ? found[1] : (sample.prompt ?? "").replace(/<img>.*?<\/img>/gs, "");
}

function answerOf(sample, run) {
  const answer = sample.answers[run];
  if (!answer) return "(not asked)";
  return answer.error ? `(no answer: ${answer.error})` : answer.text ?? "";
}

// A value in words and as a number, not only as a colour.
function mark(value, task) {
  const how = outcome(value, task.graded);
  const text = how === "partly" ? shown(value) : OUTCOMES[how];
  return element("span", { class: `mark ${how}` }, task.graded && how === "wrong" ? "0" : text);
}

function shown(value) {
  return value === null || value === undefined || Number.isNaN(value) ? "-" : String(Number(value.toFixed(4)));
}

function drawSample(place, sample, position, count) {
  const task = taskOf(place);
  const id = idOf(place);
  const link = element("a", { href: linkTo(task, id) }, "Link to this sample");
  const bar = element(
    "div",
    { class: "bar" },
    element("h2", { id: "title", tabIndex: -1 }, `${task.name} `, isolated(oneLine(id, 200))),
    element("button", { id: "previous", type: "button", disabled: position <= 0 }, "← Previous"),
    element("button", { id: "next", type: "button", disabled: position + 1 >= count }, "Next →"),
    element("span", { class: "hint" }, `${(position + 1).toLocaleString("en")} of ${count.toLocaleString("en")}`),
    link,
  );
  const shownBoxes = boxesOf(sample);
  const images = sample.images ?? [];
  const figures = images.map((path, n) => figure(path, sample.turned?.[n] ?? 1, n, images.length, n ? [] : shownBoxes));
  const told = [
    heading("Question"),
    ...question(sample),
    heading(two ? "Answers" : "Answer"),
    ...runs.map((_, run) => answer(sample, run, place, task)),
    heading("References"),
    references(sample),
    ...choices(sample),
    ...values(sample, task),
    ...groupsOf(place, task),
    heading("Prompt"),
    text(sample.prompt ?? ""),
    ...task.protocols.filter((how, run) => how.includes("-shot") && run === 0).map((how) => (
      element("p", { class: "hint" }, `Asked ${how}: the examples that stood before it are left out here.`)
    )),
  ];
  const seen = [...figures, ...(images.length && shownBoxes.length ? [legend(shownBoxes)] : [])];
  return [
    bar,
    element("div", { class: "sides" }, element("div", {}, ...told), ...(seen.length ? [element("div", { class: "seen" }, ...seen)] : [])),
  ];
}

function heading(words) {
  return element("h3", {}, words);
}

// A text that may be long: it scrolls on its own, by keys too.
function text(words, properties = {}) {
  const { class: kind = "", ...others } = properties;
  const long = words.length > 1000 || words.split("\n").length > 12;
  const more = long ? { tabIndex: 0, role: "group", "aria-label": "long text" } : {};
  return element("p", { class: `text ${kind}`, dir: "auto", ...others, ...more }, visible(words) || "(empty)");
}

function question(sample) {
  const texts = sample.texts ?? [];
  if (!texts.length) return [text(questionOf(sample), { class: "asked" })];
  return texts.flatMap(([name, words]) => (
    texts.length > 1 ? [element("p", { class: "hint" }, isolated(name)), text(words, { class: "asked" })] : [text(words, { class: "asked" })]
  ));
}

function answer(sample, run, place, task) {
  const found = sample.answers[run];
  const name = two ? [isolated(runs[run], { class: "hint" })] : [];
  const head = element("p", {}, mark(valueOf(place, run), task), ...name);
  if (!found) return element("div", { class: "said" }, head, element("p", { class: "hint" }, "not asked"));
  if (found.error) {
    return element("div", { class: "said" }, head, element("p", {}, "No answer: "), text(found.error, { class: "problem" }));
  }
  return element("div", { class: "said" }, head, text((found.text ?? "").trimStart()));
}

function references(sample) {
  const found = sample.references ?? [];
  if (!found.length) {
    return element("p", { class: "hint" }, "None here: a server or a judge scores this.");
  }
  return element("ul", { class: "plain" }, ...found.map(([words, count]) => (
    element("li", {}, text(words), ...(count > 1 ? [element("span", { class: "hint" }, `× ${count}`)] : []))
  )));
}

function choices(sample) {
  if (!sample.options) return [];
  const heads = ["Option", ...runs.map((name) => (two ? element("span", {}, "Loss in nats, ", isolated(oneLine(name, 40))) : "Loss in nats"))];
  const rows = sample.options.map((option, n) => element(
    "tr", {}, element("th", { scope: "row" }, isolated(option)),
    ...runs.map((_, run) => element("td", {}, shown(sample.answers[run]?.losses?.[n]))),
  ));
  return [heading("Options"), table(heads, rows)];
}

function values(sample, task) {
  if (!task.metrics.length) return [];
  const heads = ["Metric", ...(two ? runs.map((name) => isolated(oneLine(name, 40))) : ["Value"])];
  const rows = task.metrics.map((name, n) => row(name, (each) => each?.values?.[n]));
  if (sample.answers.some((each) => each?.iou !== undefined)) {
    rows.push(row("overlap of the boxes (IoU)", (each) => each?.iou));
  }
  return [heading("Values"), table(heads, rows)];

  function row(name, of) {
    return element("tr", {}, element("th", { scope: "row" }, name), ...sample.answers.map((each) => element("td", {}, shown(of(each)))));
  }
}

function table(heads, rows) {
  return element(
    "table", {},
    element("thead", {}, element("tr", {}, ...heads.map((each) => element("th", { scope: "col" }, each)))),
    element("tbody", {}, ...rows),
  );
}

function groupsOf(place, task) {
  const found = task.index.groups.filter((group) => group.codes[place - task.first] >= 0);
  if (!found.length) return [];
  return [heading("Groups"), element("dl", {}, ...found.flatMap((group) => [
    element("dt", {}, isolated(oneLine(group.name))),
    element("dd", {}, isolated(oneLine(group.values[group.codes[place - task.first]]))),
  ]))];
}

// The boxes of a sample: their names and places.
function boxesOf(sample) {
  const found = [];
  for (const [run, each] of sample.answers.entries()) {
    if (each?.box) found.push({ kind: KINDS[run], name: two ? oneLine(runs[run], 30) : "predicted", box: each.box });
  }
  if (sample.box) found.push({ kind: "true", name: "true", box: sample.box });
  return found;
}

// How to undo a browser's rotation of a picture, by its EXIF orientation:
// the matrix of a canvas, for a picture of so many pixels as it is shown.
const BACK = {
  2: (width) => [-1, 0, 0, 1, width, 0],
  3: (width, height) => [-1, 0, 0, -1, width, height],
  4: (width, height) => [1, 0, 0, -1, 0, height],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (width) => [0, -1, 1, 0, 0, width],
  7: (width, height) => [0, -1, -1, 0, height, width],
  8: (width, height) => [0, 1, -1, 0, height, 0],
};

function stored(img, turned) {
  const { naturalWidth: width, naturalHeight: height } = img;
  const canvas = element("canvas", { role: "img", "aria-label": img.alt });
  [canvas.width, canvas.height] = turned > 4 ? [height, width] : [width, height];
  const context = canvas.getContext("2d");
  context.setTransform(...BACK[turned](width, height));
  context.drawImage(img, 0, 0);
  return canvas;
}

function figure(path, turned, number, count, boxes) {
  const name = count > 1 ? `Picture ${number + 1} of ${count}` : "The picture that the question is about";
  const img = element("img", { alt: `${name}: ${oneLine(path)}`, decoding: "async" });
  const picture = element("div", { class: "picture" }, img);
  if (boxes.length) picture.append(overlay(boxes), ...boxes.map(label));
  const open = element("a", { href: address(path), target: "_blank", rel: "noopener" }, visible(path));
  const caption = element("figcaption", {}, open);
  img.addEventListener("load", () => {
    const back = turned > 1 && BACK[turned];
    const drawn = back ? stored(img, turned) : img;
    if (back) img.replaceWith(drawn);
    const [width, height] = back ? [drawn.width, drawn.height] : [img.naturalWidth, img.naturalHeight];
    // as high as the room; small pictures are enlarged, so that boxes are distinct
    drawn.style.width = `min(${width * 3}px, ${((60 * width) / height).toFixed(3)}vh)`;
    caption.append(`, ${width} × ${height} pixels${back ? ", as stored and as the model saw it" : ""}`);
  });
  img.addEventListener("error", () => {
    picture.replaceWith(element("p", { class: "problem" }, "The picture cannot be shown: it is not there, or of a kind that browsers do not read."));
  });
  img.src = address(path);
  return element("figure", {}, picture, caption);
}

// Reversed corners are put in order, else the box would be invisible.
function rectangle([x1, y1, x2, y2]) {
  return { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) };
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function overlay(boxes) {
  const words = boxes.map(({ name, box }) => {
    const [x1, y1, x2, y2] = box.map((side) => `${Math.round(side * 100)}%`);
    return `${name} from ${x1} left, ${y1} top to ${x2} left, ${y2} top`;
  });
  const draw = (kind, box) => svg("rect", { class: kind, ...rectangle(box) });
  // halos first, so that two boxes in one place are both visible
  const drawn = [...boxes.map(({ box }) => draw("halo", box)), ...boxes.map(({ kind, box }) => draw(kind, box))];
  const options = { class: "boxes", viewBox: "0 0 1 1", preserveAspectRatio: "none", role: "img", "aria-label": `Boxes: ${words.join("; ")}` };
  return svg("svg", options, ...drawn);
}

// A box's name outside it, or inside if there is no room: above on the left, below for the true
// one, and below on the right for the second run's.
function label({ kind, name, box }) {
  const { x, y, width, height } = rectangle(box);
  const made = element("span", { class: `name ${kind}`, "aria-hidden": "true" }, name);
  const [above, right] = [kind === "predicted", kind === "second"];
  const edge = Math.min(Math.max(above ? y : y + height, 0), 1);
  const side = Math.min(Math.max(right ? x + width : x, 0), 1);
  const up = above ? edge >= 0.08 : edge > 0.92;
  made.style.top = `${edge * 100}%`;
  made.style.left = `${side * 100}%`;
  made.style.transform = `translate(${right ? "-100%" : "0"}, ${up ? "calc(-100% - 3px)" : "3px"})`;
  return made;
}

function legend(boxes) {
  return element("ul", { class: "legend", "aria-label": "Legend" }, ...boxes.map(({ kind, name }) => {
    const line = svg("svg", { viewBox: "0 0 38 8", "aria-hidden": "true" }, svg("line", { class: kind, x1: 2, y1: 4, x2: 36, y2: 4 }));
    const how = { true: "dashed", predicted: "solid", second: "dotted" }[kind];
    const what = kind === "true" ? "true box" : two ? `box of ${name}` : "predicted box";
    return element("li", {}, line, ` ${what} (${how})`);
  }));
}
