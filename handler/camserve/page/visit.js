"use strict";

/** What was asked since the page was opened, oldest first; nothing of it is stored. */
class Visit {
  static MOST = 60; // runs; the oldest give way

  /** `open(run)` is called when one is chosen. */
  constructor(open) {
    this.runs = [];
    this.current = null;
    this.open = open;
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  add(run) {
    this.runs.push(run);
    if (this.runs.length > Visit.MOST) this.runs.shift();
  }

  /** Left and right walk, wherever they have no other meaning. */
  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("input, select, textarea, .frame, [contenteditable]")) return;
    const next = this.runs[this.runs.indexOf(this.current) + step];
    if (!next) return;
    event.preventDefault();
    this.open(next);
    const at = this.runs.indexOf(next) + 1;
    Dom.say(`${at} of ${this.runs.length}: ${next.title}`);
  }

  /** The strip of all runs, with a mark at the one that is seen. */
  show(current) {
    this.current = current;
    const strip = Dom.$("visit");
    const focused = strip.contains(document.activeElement);
    Dom.fill(strip, this.runs.map((run) => Visit.card(run, run === current, this.open)));
    const mark = strip.querySelector('[aria-current="true"]');
    if (mark) strip.scrollTo({ left: mark.offsetLeft - strip.clientWidth / 2 });
    if (focused) mark?.focus({ preventScroll: true });
  }

  /** A small picture with its heat, what it was taken for, and how it was asked. */
  static card(run, current, open) {
    const canvas = Dom.make("canvas", { width: 192, height: 144 });
    Visit.#paint(canvas, run);
    return Dom.make("button", { type: "button", class: "card", "aria-current": current ? "true" : null, click: () => open(run) },
      canvas, Dom.make("span", { class: "name" }, run.headline), Dom.make("span", { class: "quiet" }, run.detail));
  }

  static #paint(canvas, run) {
    const { base, width, height } = run.picture;
    if (!base) return;
    const context = canvas.getContext("2d");
    const scale = Math.max(canvas.width / width, canvas.height / height);
    context.setTransform(scale, 0, 0, scale, (canvas.width - width * scale) / 2, (canvas.height - height * scale) / 2);
    context.drawImage(base, 0, 0, width, height);
    const evidence = run.first && run.evidence(run.first.class_id);
    const heat = evidence?.painted(64, 64, run.colormap);
    if (!heat) return;
    const [x0, y0, x1, y1] = evidence.box;
    context.globalAlpha = 0.5;
    context.drawImage(heat, x0, y0, x1 - x0, y1 - y0);
  }
}
