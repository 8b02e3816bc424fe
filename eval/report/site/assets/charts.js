// Shared by the charts. Colours are those of Okabe and Ito, darkened where they are too light on
// white; dashes and markers differ too.
"use strict";

const COLOURS = ["#0072b2", "#c04f00", "#00785a", "#a3477f", "#1b1f24", "#8a6a00", "#3a86b7", "#7a5195"];
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const SIGNS = ["circle", "rect", "triangle", "rectRot", "star", "crossRot"];

Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
Chart.defaults.color = "#1b1f24";

function short(text, length = 36) {
  const signs = Array.from(text);
  return signs.length <= length ? text : signs.slice(0, length - 1).join("") + "…";
}

// Lines of a label, broken between words.
function folded(text, width = 22) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines.length - 1;
    if (lines[last] && lines[last].length + word.length >= width) lines.push(word);
    else lines[last] += (lines[last] ? " " : "") + word;
  }
  return lines;
}

function look(number) {
  const colour = COLOURS[number % COLOURS.length];
  return {
    borderColor: colour,
    backgroundColor: colour,
    borderDash: DASHES[number % DASHES.length],
    pointStyle: SIGNS[number % SIGNS.length],
    borderWidth: 2,
    pointRadius: 4,
  };
}
