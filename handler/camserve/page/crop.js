"use strict";

/** The box to look at again: drawn with the mouse, a finger or a pen, or typed as numbers. */
class Crop {
  static LEAST = 16; // pixels a side

  /** `changed(box)` hears of every change, `run(text)` of the wish to ask again; the text is what the option takes. */
  constructor({ changed, run }) {
    this.fields = ["crop-x", "crop-y", "crop-width", "crop-height"].map(Dom.$);
    this.box = null;
    this.picture = null;
    this.changed = changed;
    for (const field of this.fields) field.addEventListener("input", () => this.#typed());
    Dom.$("crop-run").addEventListener("click", () => run(this.text));
    Dom.$("crop-whole").addEventListener("click", () => {
      this.clear();
      run("");
    });
    Dom.$("crop-draw").addEventListener("click", ({ currentTarget }) => {
      const on = currentTarget.getAttribute("aria-pressed") !== "true";
      currentTarget.setAttribute("aria-pressed", String(on));
      for (const frame of document.querySelectorAll(".frame")) frame.classList.toggle("drawing", on);
    });
  }

  /** A box of picture pixels while it is drawn. */
  draw([x0, y0, x1, y1]) {
    const [left, top] = [Math.floor(x0), Math.floor(y0)];
    this.#write([left, top, Math.ceil(x1) - left, Math.ceil(y1) - top]);
  }

  #write(values) {
    values.forEach((value, at) => { this.fields[at].value = value; });
    this.#typed();
  }

  /** The drawing ended: a click without a box forgets it. */
  drawn() {
    if (this.box && this.box[2] - this.box[0] < Crop.LEAST / 2 && this.box[3] - this.box[1] < Crop.LEAST / 2) this.clear();
  }

  clear() {
    for (const field of this.fields) field.value = "";
    this.#set(null);
  }

  /** Which picture it is about, and which part of it is shown: `x,y,width,height`, or nothing for the whole. */
  show(picture, text) {
    const same = picture === this.picture && text === this.text;
    this.picture = picture;
    if (!same && text) this.#write(text.split(",").map(Number));
    else if (!same) this.clear();
    Dom.$("crop-whole").disabled = !text && !this.box;
    for (const field of [...this.fields, Dom.$("crop-draw")]) field.disabled = !picture?.width;
  }

  /** `x,y,width,height`, or nothing. */
  get text() {
    if (!this.#valid()) return "";
    const [x0, y0, x1, y1] = this.box;
    return [x0, y0, x1 - x0, y1 - y0].join(",");
  }

  #typed() {
    const [x, y, width, height] = this.fields.map((field) => Number.parseInt(field.value, 10));
    this.#set([x, y, width, height].some(Number.isNaN) ? null : [x, y, x + width, y + height]);
  }

  #set(box) {
    this.box = box;
    Dom.$("crop-run").disabled = !this.#valid();
    if (box) Dom.$("crop-whole").disabled = false;
    const complete = this.fields.every((field) => field.value !== "");
    Dom.$("crop-note").textContent = complete && box && !this.#valid()
      ? `The box has to lie inside the picture, ${this.picture.width} x ${this.picture.height}, and be at least 16 x 16.`
      : "";
    this.changed(box);
  }

  #valid() {
    if (!this.box || !this.picture) return false;
    const [x0, y0, x1, y1] = this.box;
    const inside = x0 >= 0 && y0 >= 0 && x1 <= this.picture.width && y1 <= this.picture.height;
    return inside && x1 - x0 >= Crop.LEAST && y1 - y0 >= Crop.LEAST;
  }
}
