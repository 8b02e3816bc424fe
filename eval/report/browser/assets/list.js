"use strict";
// The list: the page holds only the rows in view, whatever the number of samples.

const ROW = 56; // pixels, as in app.css
const TALLEST = 16e6; // pixels; browsers draw wrongly beyond some more
const BEYOND = 6; // rows drawn above and below the view
const SLOW = 25; // rows between two frames up to which rows are filled while scrolling
const QUIET = 90; // milliseconds without scrolling after which rows are filled in any case

class List {
  // fill(row, place, sample) draws a sample; chosen(place) is called for a choice
  constructor(fill, chosen) {
    this.box = document.getElementById("list");
    this.height = document.getElementById("height");
    this.rows = document.getElementById("rows");
    this.fill = fill;
    this.chosen = chosen;
    this.view = new Uint32Array();
    this.at = -1; // the chosen row
    this.drawn = new Map(); // position -> row
    this.last = 0;
    this.box.addEventListener("scroll", () => this.soon(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(Number(row.dataset.at));
    });
    new ResizeObserver(() => this.soon()).observe(this.box);
  }

  // Show other samples; keep the chosen one if it is among them.
  show(view, place = this.place) {
    this.view = view;
    this.box.setAttribute("role", view.length ? "listbox" : "group"); // a listbox is never empty
    this.height.style.height = `${Math.min(view.length * ROW, TALLEST)}px`;
    this.clear();
    this.at = view.length ? Math.max(view.indexOf(place), 0) : -1;
    this.reveal();
    this.draw();
  }

  get place() {
    return this.view[this.at];
  }

  choose(at) {
    if (!this.view.length) return;
    this.at = Math.min(Math.max(at, 0), this.view.length - 1);
    this.reveal();
    this.draw();
    this.chosen(this.place);
  }

  // How many pixels of the full list one scrolled pixel stands for.
  get ratio() {
    const seen = this.box.clientHeight;
    const real = this.view.length * ROW - seen;
    const can = Math.min(this.view.length * ROW, TALLEST) - seen;
    return real > 0 && can > 0 ? real / can : 1;
  }

  reveal() {
    if (this.at < 0) return;
    const seen = this.box.clientHeight;
    const { ratio } = this;
    const top = this.box.scrollTop * ratio;
    const row = this.at * ROW;
    if (row < top) this.box.scrollTop = row / ratio;
    else if (row + ROW > top + seen) this.box.scrollTop = Math.ceil((row + ROW - seen) / ratio);
  }

  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  clear() {
    this.drawn.clear();
    this.rows.replaceChildren();
  }

  draw() {
    const scroll = this.box.scrollTop;
    const top = scroll * this.ratio;
    const first = Math.max(Math.floor(top / ROW) - BEYOND, 0);
    const end = Math.min(Math.ceil((top + this.box.clientHeight) / ROW) + BEYOND, this.view.length);
    for (const [at, row] of this.drawn) {
      if (at < first || at >= end) {
        row.remove();
        this.drawn.delete(at);
      }
    }
    let next = this.rows.firstElementChild;
    for (let at = first; at < end; at++) {
      let row = this.drawn.get(at);
      if (!row) {
        row = this.make(at);
        this.drawn.set(at, row);
        this.rows.insertBefore(row, next); // in the order of the list, for screen readers
      } else next = row.nextElementSibling;
      row.style.top = `${at * ROW - top + scroll}px`;
      row.setAttribute("aria-selected", String(at === this.at));
    }
    if (this.drawn.has(this.at)) this.box.setAttribute("aria-activedescendant", `row-${this.at}`);
    else this.box.removeAttribute("aria-activedescendant");
    const moved = Math.abs(first - this.last);
    this.last = first;
    clearTimeout(this.quiet);
    if (moved < SLOW) this.complete();
    else this.quiet = setTimeout(() => this.complete(), QUIET);
  }

  make(at) {
    const place = this.view[at];
    const row = element("div", { class: "row", id: `row-${at}`, role: "option" });
    row.dataset.at = at;
    row.setAttribute("aria-setsize", this.view.length);
    row.setAttribute("aria-posinset", at + 1);
    const sample = held(place);
    this.fill(row, place, sample);
    row.complete = Boolean(sample);
    return row;
  }

  // Fill the rows in view that are not filled yet, pictures too.
  async complete() {
    for (const [at, row] of this.drawn) {
      for (const picture of row.querySelectorAll("img[data-src]")) {
        picture.src = picture.dataset.src;
        picture.removeAttribute("data-src");
      }
      if (row.complete || row.waiting) continue;
      row.waiting = true;
      const place = this.view[at];
      loadSample(place).then((sample) => {
        if (!row.isConnected) return;
        row.complete = true;
        this.fill(row, place, sample);
        this.soon();
      }, (error) => row.isConnected && row.lastElementChild.append(error.message));
    }
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const page = Math.max(Math.floor(this.box.clientHeight / ROW) - 1, 1);
    const to = {
      ArrowDown: this.at + 1,
      ArrowUp: this.at - 1,
      PageDown: this.at + page,
      PageUp: this.at - page,
      Home: 0,
      End: this.view.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(to);
  }
}
