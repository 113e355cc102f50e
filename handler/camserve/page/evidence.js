"use strict";

/** A map of the answer: one signed value a cell, and where it lies on the picture. The same rules as the service's. */
class Evidence {
  static SMALLEST = 1e-12;
  static MOST_CELLS = 64 * 64; // maps of more cells are of pixels, in which single values stick out
  static OF_PIXELS = 0.99; // the quantile of such a map's values at which its colours end

  /** `entry` is a class of the answer with its grid, `box` the part of the picture that the network saw. */
  constructor(entry, box) {
    const { shape, scale, data } = entry.grid;
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    [this.rows, this.columns] = shape;
    this.values = Float32Array.from({ length: this.rows * this.columns }, (_, at) => view.getFloat32(at * 4, true) * scale);
    this.polarity = entry.polarity;
    this.box = box;
    this.peak = this.#peak();
  }

  get signed() {
    return this.polarity === "both";
  }

  /** What of a value is shown: what speaks for, what speaks against, or both with their signs. */
  shown(value) {
    if (this.signed) return value;
    return Math.max(0, this.polarity === "negative" ? -value : value);
  }

  #peak() {
    const sizes = this.values.map((value) => Math.abs(this.shown(value)));
    const above = sizes.filter((size) => size > Evidence.SMALLEST).sort();
    if (!above.length) return 0;
    if (sizes.length <= Evidence.MOST_CELLS) return above[above.length - 1];
    const place = (above.length - 1) * Evidence.OF_PIXELS;
    const low = above[Math.floor(place)];
    return low + (above[Math.ceil(place)] - low) * (place % 1);
  }

  /** The signed value at a point of the picture, between cell centres interpolated; null where nothing was seen. */
  at(x, y) {
    const [x0, y0, x1, y1] = this.box;
    if (x < x0 || x > x1 || y < y0 || y > y1) return null;
    const [left, right, across] = Evidence.#between(((x - x0) / (x1 - x0)) * this.columns - 0.5, this.columns);
    const [above, below, down] = Evidence.#between(((y - y0) / (y1 - y0)) * this.rows - 0.5, this.rows);
    const cell = (row, column) => this.values[row * this.columns + column];
    const upper = cell(above, left) * (1 - across) + cell(above, right) * across;
    return upper * (1 - down) + (cell(below, left) * (1 - across) + cell(below, right) * across) * down;
  }

  static #between(place, count) {
    const clamped = Math.min(Math.max(place, 0), count - 1);
    const low = Math.floor(clamped);
    return [low, Math.min(low + 1, count - 1), clamped - low];
  }

  /** The coloured map, `width` x `height` pixels for the whole box; null where there is no evidence. */
  painted(width, height, colormap) {
    if (this.peak <= Evidence.SMALLEST) return null;
    const canvas = Dom.make("canvas", { width, height });
    const image = new ImageData(width, height);
    const colours = Colours.table(colormap, this.signed);
    const across = Array.from({ length: width }, (_, x) => Evidence.#between(((x + 0.5) / width) * this.columns - 0.5, this.columns));
    for (let y = 0, at = 0; y < height; y += 1) {
      const [above, below, down] = Evidence.#between(((y + 0.5) / height) * this.rows - 0.5, this.rows);
      const line = this.#line(above, below, down);
      for (let x = 0; x < width; x += 1, at += 4) {
        const [left, right, part] = across[x];
        const level = this.#level(line[left] + (line[right] - line[left]) * part) * 3;
        image.data[at] = colours[level];
        image.data[at + 1] = colours[level + 1];
        image.data[at + 2] = colours[level + 2];
        image.data[at + 3] = 255;
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  /** What is shown of a row between two rows of cells, as heat in [0, 1], or [-1, 1] if signed. */
  #line(above, below, down) {
    return Float32Array.from({ length: this.columns }, (_, column) => {
      const heat = (row) => Math.min(1, Math.max(-1, this.shown(this.values[row * this.columns + column]) / this.peak));
      return heat(above) + (heat(below) - heat(above)) * down;
    });
  }

  #level(heat) {
    return Math.round(this.signed ? 128 + heat * 127 : heat * 255);
  }
}
