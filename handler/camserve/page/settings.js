"use strict";

/**
 * What a view consists of, but for the picture: one plain object, which stands in the URL so that it can be shared.
 * Some of it asks the server for something else, the rest only changes how an answer is drawn.
 */
const Settings = (() => {
  const TOP = 5;
  const DEFAULTS = Object.freeze({
    method: "gradcam",
    layer: "",
    polarity: "positive",
    contrast: "",
    verify: false,
    crop: "",
    beside: "",
    sample: "",
    colormap: "viridis",
    opacity: 0.55,
    boxes: true,
  });
  const ASKS = ["method", "layer", "polarity", "contrast", "verify"];

  /** The settings that a URL's query states; what cannot be read is left at its default. */
  function read(search) {
    const query = new URLSearchParams(search);
    const settings = { ...DEFAULTS };
    for (const [name, standard] of Object.entries(DEFAULTS)) {
      const text = query.get(name);
      if (text === null) continue;
      if (typeof standard === "boolean") settings[name] = text === "true";
      else if (typeof standard === "number") settings[name] = ratio(text, standard);
      else settings[name] = text;
    }
    if (!Colours.NAMES.includes(settings.colormap)) settings.colormap = DEFAULTS.colormap;
    if (!["positive", "negative", "both"].includes(settings.polarity)) settings.polarity = DEFAULTS.polarity;
    return settings;
  }

  function ratio(text, standard) {
    const value = Number.parseFloat(text);
    return value >= 0 && value <= 1 ? value : standard;
  }

  /** The query for the address bar: what differs from the defaults, and the model if the URL named one. */
  function search(settings) {
    const query = new URLSearchParams();
    const model = new URLSearchParams(location.search).get("model");
    if (model !== null) query.set("model", model);
    for (const [name, standard] of Object.entries(DEFAULTS)) {
      if (settings[name] !== standard) query.set(name, String(settings[name]));
    }
    const text = query.toString();
    return text && `?${text}`;
  }

  /**
   * What to ask the service. `takes` says which options the method takes; `classes` are ids, null for the likeliest;
   * `single` asks for one class only, where each costs a forward pass or more.
   */
  function options(settings, { takes, classes, single, drawn }) {
    const asked = { explain: "true", topk: String(TOP) };
    if (takes.classes) asked.classes = classes ? classes.join(",") : single ? "top:1" : `top:${TOP}`;
    asked.method = settings.method;
    if (takes.layer && settings.layer) asked.layer = settings.layer;
    if (takes.polarity && settings.polarity !== "positive") asked.polarity = settings.polarity;
    if (takes.contrast && settings.contrast) asked.contrast = settings.contrast;
    if (settings.verify) asked.verify = "true";
    if (settings.crop) asked.crop = settings.crop;
    asked.maps = "grid,regions";
    // The plain picture, for formats that the browser cannot read.
    if (drawn) Object.assign(asked, { maps: "grid,regions,overlay", opacity: "0", max_side: "1280" });
    return asked;
  }

  return { TOP, DEFAULTS, ASKS, read, search, options };
})();
