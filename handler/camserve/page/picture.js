"use strict";

/** A picture as it was dropped, pasted, chosen or photographed. It stays in this tab; only requests carry it. */
class Picture {
  static MOST_SIDE = 1280; // pixels of the copy that is drawn
  static SAMPLES = ["cat", "coffee", "rocket"];

  /** `base` is the upright copy to draw on (null: this browser cannot read the format), `width` of the original. */
  constructor(blob, name, base, width, height) {
    Object.assign(this, { blob, name, base, width, height, sample: "" });
  }

  /** A picture from a file, as it is now: it may change or go. A format that the browser cannot read is the server's. */
  static async load(file, name) {
    const bytes = await file.arrayBuffer().catch(() => {
      throw new Service.Refusal(`“${name}” cannot be read. Choose it again.`, 400);
    });
    const blob = new Blob([bytes], { type: file.type });
    try {
      const bitmap = await createImageBitmap(blob);
      const { width, height } = bitmap;
      const picture = new Picture(blob, name, Picture.#copy(bitmap, width, height), width, height);
      bitmap.close();
      return picture;
    } catch {
      return new Picture(blob, name, null, 0, 0);
    }
  }

  /** One of the samples that come with the page. */
  static async sample(name) {
    const answer = await fetch(Picture.path(name)).catch(() => null);
    if (!answer?.ok) throw new Service.Refusal("The sample could not be loaded.");
    const picture = await Picture.load(await answer.blob(), `${name}.jpg`);
    picture.sample = name;
    return picture;
  }

  static path(name) {
    return `/page/samples/${name}.jpg`;
  }

  /** Takes size and, if need be, the pixels from an answer. */
  async complete(answer) {
    const { width, height } = answer.image;
    Object.assign(this, { width, height });
    const drawn = answer.explanation?.classes?.find((entry) => entry.overlay)?.overlay;
    if (this.base || !drawn) return;
    const bytes = Uint8Array.from(atob(drawn.data), (letter) => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: drawn.mime }));
    this.base = Picture.#copy(bitmap, bitmap.width, bitmap.height);
    bitmap.close();
  }

  /** `inside` x `inside` pixels or fewer, whatever the original has. */
  static #copy(bitmap, width, height) {
    const factor = Math.min(1, Picture.MOST_SIDE / Math.max(width, height));
    const canvas = Dom.make("canvas", {
      width: Math.max(1, Math.round(width * factor)),
      height: Math.max(1, Math.round(height * factor)),
    });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; // as the service: transparency over white
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas;
  }
}
