"use strict";

/** The controls: what can be chosen comes from the model's description, what cannot says why. */
class Controls {
  static NOTES = ["method", "layer", "polarity", "contrast", "crop", "classes"];

  /** `changed(name, value)` hears of every choice. */
  constructor(settings, changed) {
    this.settings = settings;
    this.description = null;
    for (const id of ["method", "layer", "contrast", "colormap"]) {
      Dom.$(id).addEventListener("change", ({ target }) => changed(id, target.value));
    }
    for (const id of ["verify", "boxes"]) {
      Dom.$(id).addEventListener("change", ({ target }) => changed(id, target.checked));
    }
    Dom.$("polarity").addEventListener("change", ({ target }) => changed("polarity", target.value));
    Dom.$("opacity").addEventListener("input", ({ target }) => changed("opacity", Number(target.value)));
    for (const form of ["controls", "crop"]) Dom.$(form).addEventListener("submit", (event) => event.preventDefault());
    this.#colours();
    this.contrasts([]);
    this.update(settings);
  }

  #colours() {
    const option = (name) => Dom.make("option", { value: name }, name.charAt(0).toUpperCase() + name.slice(1));
    const rainbow = Colours.NAMES.filter((name) => !Colours.UNIFORM.includes(name));
    Dom.fill(Dom.$("colormap"),
      Dom.make("optgroup", { label: "Even steps" }, Colours.UNIFORM.map(option)),
      Dom.make("optgroup", { label: "Rainbow" }, rainbow.map(option)));
  }

  /** The model's methods, layers and classes. */
  describe(description) {
    this.description = description;
    Dom.fill(Dom.$("layer"), description.layers.map(({ name, channels, grid_shape: [height, width] }) => {
      const standard = name === description.default_layer ? ", default" : "";
      return Dom.make("option", { value: standard ? "" : name }, `${name}  (${height} x ${width}, ${channels} channels${standard})`);
    }));
    const count = new Map();
    for (const label of description.classes) count.set(label, (count.get(label) || 0) + 1);
    Dom.fill(Dom.$("labels"), description.classes.map((label, id) => Dom.make("option", { value: count.get(label) > 1 ? `${label} (${id})` : label })));
    this.update(this.settings);
  }

  /** The id of a class by its label, by "label (id)" or by its id; null where there is none. */
  classOf(text) {
    const wanted = text.trim().toLowerCase();
    const labels = this.description?.classes || [];
    const found = labels.findIndex((label, id) => [label.toLowerCase(), `${label.toLowerCase()} (${id})`, String(id)].includes(wanted));
    return found < 0 ? null : found;
  }

  /** The method as described; before that is known, one that takes everything. */
  get method() {
    const known = this.description?.methods.find(({ name }) => name === this.settings.method);
    return known || { title: this.settings.method, forwards: 0, available: true, takes: { classes: true, contrast: true, polarity: true, layer: true } };
  }

  /** What there is to compare with: the classes that were predicted. */
  contrasts(predictions) {
    const { contrast } = this.settings;
    const options = [["", "no other: plain evidence"], ["runner_up", "the runner-up"]];
    options.push(...predictions.map(({ class_id: id, label }) => [String(id), label]));
    if (!options.some(([value]) => value === contrast)) {
      options.push([contrast, this.description?.classes[contrast] ?? contrast]);
    }
    Dom.fill(Dom.$("contrast"), options.map(([value, text]) => Dom.make("option", { value }, text)));
    Dom.$("contrast").value = contrast;
  }

  /** Shows the settings, and what the method does not take as switched off. */
  update(settings) {
    this.settings = settings;
    if (this.description) this.#methods();
    const { $ } = Dom;
    for (const id of ["layer", "contrast", "colormap"]) $(id).value = settings[id];
    for (const id of ["verify", "boxes"]) $(id).checked = settings[id];
    document.querySelector(`#polarity [value="${settings.polarity}"]`).checked = true;
    $("opacity").value = settings.opacity;
    $("opacity-value").textContent = Words.percent(settings.opacity);
    $("colormap").disabled = settings.polarity === "both" && this.method.takes.polarity;
    this.#legend();
    this.clear();
  }

  #methods() {
    const { methods, layers, default_layer: standard } = this.description;
    const layer = layers.find(({ name }) => name === (this.settings.layer || standard));
    Dom.fill(Dom.$("method"), methods.map((method) => {
      const reason = Words.unavailable(method, layer, this.description);
      return Dom.make("option", { value: method.name, disabled: Boolean(reason) }, reason ? `${method.title}: ${reason}` : method.title);
    }));
    Dom.$("method").value = this.settings.method;
  }

  #legend() {
    const { $ } = Dom;
    const { takes } = this.method;
    const polarity = takes.polarity ? this.settings.polarity : "positive";
    const signed = polarity === "both";
    Colours.legend($("legend"), this.settings.colormap, signed);
    const ends = { positive: ["none", "", "strongest"], negative: ["none", "", "strongest against"], both: ["against", "0", "for"] }[polarity];
    ["legend-low", "legend-middle", "legend-high"].forEach((id, at) => { $(id).textContent = ends[at]; });
    $("legend").setAttribute("aria-label", `Legend of the colours: from ${ends[0]} to ${ends[2]}, relative to each map's own peak`);
  }

  /** Takes errors away; only what the method does not take is said. */
  clear() {
    const { takes, title } = this.method;
    for (const name of Controls.NOTES) this.note(name, "");
    this.note("other", "");
    for (const name of ["layer", "polarity", "contrast"]) {
      const off = !takes[name];
      const field = Dom.$(name);
      field.disabled = off || !this.description;
      if (off) this.note(name, name === "layer" ? `${title} has its own layer.` : `${title} has no choice here.`);
    }
  }

  /** Says what was wrong, beside the control that caused it. */
  refuse(refusal) {
    const name = Controls.NOTES.includes(refusal.option) ? refusal.option : refusal.option ? "other" : "picture";
    this.note(name, refusal.message, true);
    Dom.say(refusal.message);
  }

  /** A sentence below a control. */
  note(name, text, wrong = false) {
    const note = Dom.$(`${name}-note`);
    note.textContent = text;
    note.classList.toggle("wrong", wrong);
    const field = Dom.$(name);
    if (field?.matches("select")) field.toggleAttribute("aria-invalid", wrong);
  }
}
