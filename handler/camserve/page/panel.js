"use strict";

/** One picture with its heat, boxes, the box to cut out and the point that is read, on a canvas. */
class Panel {
  static STEP = 1 / 24; // of the picture's longer side; what an arrow key moves the point by
  static MOST_HEAT = 512; // pixels a side of the coloured map before it is stretched

  /** `listen` has `point(x, y)`, `draw(box)` and `drawn()`; all speak of pixels of the upright original. */
  constructor(element, listen) {
    this.canvas = element.querySelector("canvas");
    this.frame = element.querySelector(".frame");
    this.listen = listen;
    this.view = null;
    this.point = null;
    this.box = null;
    this.#follow();
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  /** `view`: {picture, evidence, regions, cut, look: {colormap, opacity, boxes}, summary}; null shows nothing. */
  show(view) {
    if (view?.evidence !== this.view?.evidence || view?.look.colormap !== this.view?.look.colormap) this.heat = null;
    this.view = view;
    if (view) this.frame.setAttribute("aria-label", view.summary);
    if (view?.picture.width) this.frame.parentElement.style.setProperty("--ratio", view.picture.width / view.picture.height);
    this.draw();
  }

  /** Marks a point or a box of the picture; null takes the mark away. */
  mark(marks) {
    Object.assign(this, marks);
    this.draw();
  }

  /** Where the picture lies in the frame: its scale and its corner, in CSS pixels. */
  get place() {
    const { width, height } = this.view.picture;
    const scale = Math.min(this.frame.clientWidth / width, this.frame.clientHeight / height);
    return {
      scale,
      left: (this.frame.clientWidth - width * scale) / 2,
      top: (this.frame.clientHeight - height * scale) / 2,
    };
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.frame;
    const dots = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * dots);
    this.canvas.height = Math.round(height * dots);
    if (!this.view?.picture.base || !width || !height) return;
    const context = this.canvas.getContext("2d");
    const { scale, left, top } = this.place;
    context.setTransform(dots * scale, 0, 0, dots * scale, dots * left, dots * top);
    this.paint(context, scale);
    this.#marks(context, scale);
  }

  /** Picture, heat and boxes in the picture's own pixels; `scale` tells how large these are drawn. */
  paint(context, scale) {
    const { picture, evidence, look, regions } = this.view;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.base, 0, 0, picture.width, picture.height);
    if (evidence) this.#glow(context, evidence, look, scale);
    if (look.boxes) (regions || []).forEach(({ box }, at) => Panel.#frame(context, box, (at ? 1 : 2.5) / scale));
  }

  #glow(context, evidence, look, scale) {
    const [x0, y0, x1, y1] = evidence.box;
    const side = (length) => Math.max(1, Math.min(Panel.MOST_HEAT, Math.round(length * Math.max(scale, 0.25))));
    this.heat ??= evidence.painted(side(x1 - x0), side(y1 - y0), look.colormap);
    if (!this.heat) return;
    context.globalAlpha = look.opacity;
    context.drawImage(this.heat, x0, y0, x1 - x0, y1 - y0);
    context.globalAlpha = 1;
  }

  /** A line that shows on any ground: white on black. */
  static #frame(context, [x0, y0, x1, y1], line, dashes = []) {
    context.setLineDash([]);
    for (const [width, colour] of [[line * 2, "rgb(0 0 0 / 65%)"], [line, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      context.setLineDash(dashes);
    }
  }

  #marks(context, scale) {
    const { cut, picture: { width, height } } = this.view;
    if (cut && !this.box) Panel.#frame(context, cut, 1.5 / scale, [6 / scale, 4 / scale]);
    if (this.box) {
      const [x0, y0, x1, y1] = this.box;
      context.fillStyle = "rgb(0 0 0 / 55%)";
      context.beginPath();
      context.rect(0, 0, width, height);
      context.rect(x0, y0, x1 - x0, y1 - y0);
      context.fill("evenodd");
      Panel.#frame(context, this.box, 2 / scale, [6 / scale, 4 / scale]);
    }
    if (this.point) {
      const [x, y] = this.point;
      for (const [line, colour] of [[4, "rgb(0 0 0 / 65%)"], [2, "#fff"]]) {
        context.lineWidth = line / scale;
        context.strokeStyle = colour;
        context.setLineDash([]);
        context.beginPath();
        context.arc(x, y, 6 / scale, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  /** The point of the picture under a pointer, kept inside it. */
  #under(event) {
    const { scale, left, top } = this.place;
    const bounds = this.frame.getBoundingClientRect();
    const { width, height } = this.view.picture;
    const x = (event.clientX - bounds.left - left) / scale;
    const y = (event.clientY - bounds.top - top) / scale;
    const inside = x >= 0 && x <= width && y >= 0 && y <= height;
    return { inside, x: Math.min(Math.max(x, 0), width), y: Math.min(Math.max(y, 0), height) };
  }

  #follow() {
    let start = null;
    const { frame } = this;
    frame.addEventListener("pointerdown", (event) => {
      if (!this.view || event.button !== 0 || !this.#under(event).inside) return;
      if (event.pointerType === "touch" && !frame.classList.contains("drawing")) return;
      start = this.#under(event);
      frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => {
      if (!this.view?.picture.width) return;
      const { inside, x, y } = this.#under(event);
      if (start) this.listen.draw([Math.min(start.x, x), Math.min(start.y, y), Math.max(start.x, x), Math.max(start.y, y)]);
      else this.listen.point(inside ? [x, y] : null);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      frame.addEventListener(end, () => {
        if (start) this.listen.drawn();
        start = null;
      });
    }
    frame.addEventListener("pointerleave", () => this.view && this.listen.point(null));
    frame.addEventListener("keydown", (event) => this.#key(event));
    frame.addEventListener("blur", () => this.view && this.listen.point(null));
  }

  #key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way || !this.view?.picture.width || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const { width, height } = this.view.picture;
    const [x, y] = this.point || [width / 2, height / 2];
    const step = Math.max(width, height) * Panel.STEP;
    const moved = this.point ? way : [0, 0];
    this.listen.point([
      Math.min(Math.max(x + moved[0] * step, 0), width),
      Math.min(Math.max(y + moved[1] * step, 0), height),
    ], true);
  }
}
