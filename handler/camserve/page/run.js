"use strict";

/** One picture asked about in one way, and what came back. */
class Run {
  /** `before` is the run on the whole picture, where this one is on a part. */
  constructor({ picture, settings, options, answer, ms, method, before = null }) {
    Object.assign(this, { picture, settings: { ...settings }, options, answer, ms, method, before });
    this.entries = new Map();
    this.maps = new Map();
    this.merge(answer);
  }

  /** Takes the classes that an answer explains. */
  merge(answer) {
    for (const entry of answer.explanation?.classes || []) {
      this.entries.set(entry.class_id, entry);
      this.maps.delete(entry.class_id);
    }
  }

  /** The class that is explained first, or undefined. */
  get first() {
    return this.entries.values().next().value;
  }

  /** The map of a class; null where there is none. */
  evidence(id) {
    const entry = this.entries.get(id);
    if (!entry?.grid) return null;
    if (!this.maps.has(id)) this.maps.set(id, new Evidence(entry, this.answer.image.model_box));
    return this.maps.get(id);
  }

  /** Whether another picture or other settings would ask the server for the same. */
  asks(picture, settings) {
    return picture === this.picture && Settings.ASKS.every((name) => settings[name] === this.settings[name]);
  }

  get headline() {
    const [likeliest] = this.answer.predictions;
    return `${likeliest.label}, ${Words.percent(likeliest.probability)}`;
  }

  /** How it was asked, in few words. */
  get detail() {
    const { polarity, contrast, crop, layer } = this.settings;
    const parts = [this.method, layer, polarity === "positive" ? "" : polarity, contrast && "compared", crop && "a part"];
    return parts.filter(Boolean).join(", ");
  }

  get title() {
    return `${this.picture.name}: ${this.headline}; ${this.detail}`;
  }

  get colormap() {
    return this.settings.colormap;
  }
}
