"use strict";

/** The page itself: what is seen now, and what happens when something is asked. */
const Page = (() => {
  const { $, make, fill, say } = Dom;
  const TRIES = 3; // of a request that fails although the server is ready
  const TOGETHER = 2; // requests of a contact sheet at a time
  const MOST_AT_ONCE = 50; // pictures of a contact sheet

  let settings = Settings.read(location.search);
  let picture = null;
  let run = null;
  let sheet = [];
  let turn = 0;
  let controller = new AbortController();

  const controls = new Controls(settings, change);
  const visit = new Visit(open);
  const listen = {
    point: (point, spoken) => read(point, spoken),
    draw: (box) => crop.draw(box),
    drawn: () => crop.drawn(),
  };
  const panels = [...document.querySelectorAll(".panel")].map((element) => new Panel(element, listen));
  const crop = new Crop({ changed: mark, run: (text) => change("crop", text) });

  // --- asking ---------------------------------------------------------------------------------------------------

  /** The result of `work`, which is tried again when the server comes back; null where it is refused or outdated. */
  async function patiently(work, current) {
    for (let tries = 1; current(); tries += 1) {
      try {
        const result = await work();
        away("");
        return result;
      } catch (error) {
        if (error.name === "AbortError" || !current()) return null;
        if (!(error instanceof Service.Refusal)) throw error;
        if (!error.away || tries === TRIES) {
          away("");
          controls.refuse(error);
          return null;
        }
        away(`${error.message} Trying again …`);
        await Service.back();
      }
    }
    return null;
  }

  /** The same for what a person waits for: a newer wish takes the place of an older one. */
  async function asking(work) {
    const mine = (turn += 1);
    controller.abort();
    controller = new AbortController();
    const { signal } = controller;
    busy(true);
    const result = await patiently(() => work(signal), () => mine === turn);
    if (mine === turn) busy(false);
    return mine === turn ? result : null;
  }

  /** Asks about a picture, of all classes that matter or of those with these ids. */
  async function request(one, wanted, signal, classes = null) {
    const { takes, forwards, title } = controls.method;
    const single = forwards > 0 || wanted.verify;
    const options = Settings.options(wanted, { takes, classes, single, drawn: !one.base });
    const began = performance.now();
    const answer = await Service.predict(one.blob, options, signal);
    const ms = performance.now() - began;
    await one.complete(answer);
    return new Run({ picture: one, settings: wanted, options, answer, ms, method: title });
  }

  /** Asks about the picture as the settings say; a part of it also as a whole, to compare. */
  async function ask() {
    if (!picture) return;
    controls.clear();
    note("picture", "");
    const one = picture;
    const wanted = { ...settings };
    const whole = [run, run?.before].find((known) => known && !known.settings.crop && known.asks(one, wanted));
    const done = await asking(async (signal) => {
      const before = wanted.crop ? whole || await request(one, { ...wanted, crop: "" }, signal) : null;
      return Object.assign(await request(one, wanted, signal), { before });
    });
    if (!done) return;
    visit.add(done);
    await open(done);
    say(`${done.headline}. ${panels[0].view?.sentence ?? ""}`);
  }

  /** A choice of the person's: some only change how an answer is drawn. */
  function change(name, value) {
    settings = { ...settings, [name]: value };
    controls.update(settings);
    remember();
    if (Settings.ASKS.includes(name) || name === "crop") ask();
    else show();
  }

  /** A class was chosen: its map beside the first, or away again. */
  async function choose(id) {
    const { takes, title } = controls.method;
    if (!run) return;
    if (!takes.classes && id !== run.first?.class_id) {
      note("classes", `${title} looks at no class: its map is the same for all.`);
      return;
    }
    const plain = !run.before && id === run.first?.class_id;
    settings = { ...settings, beside: plain || settings.beside === String(id) ? "" : String(id) };
    run.settings.beside = settings.beside;
    remember();
    await open(run);
    say(panels[1].view ? `Beside it: ${panels[1].view.summary}` : panels[0].view.summary);
  }

  /** Asks for the maps that are to be seen and were not in the answer. */
  async function complete() {
    const id = settings.beside === "" ? null : Number(settings.beside);
    if (id === null) return;
    for (const one of [run.before, run].filter((known) => known && !known.entries.has(id))) {
      const wanted = { ...settings, crop: one.settings.crop };
      const more = await asking((signal) => request(one.picture, wanted, signal, [id]));
      if (more) one.merge(more.answer);
    }
  }

  // --- pictures -------------------------------------------------------------------------------------------------

  /** Files that were dropped, pasted, chosen or photographed. */
  async function take(files) {
    const pictures = Picture.among(files);
    note("picture", "");
    if (!pictures.length) {
      if (files.length) note("picture", `${files[0].name} is no picture: it has the type ${files[0].type}.`);
      return;
    }
    if (pictures.length > 1) return contact(pictures);
    await use(await Picture.load(pictures[0], pictures[0].name || "pasted.png"));
  }

  /** Shows a picture at once and asks about it. */
  async function use(one) {
    picture = one;
    run = null;
    const kept = one.sample && one.sample === settings.sample ? {} : { crop: "", beside: "" };
    settings = { ...settings, ...kept, sample: one.sample };
    remember();
    unsheet();
    crop.show(one, false);
    show();
    Findings.waiting();
    await ask();
  }

  async function sample(name) {
    note("picture", "");
    const one = await asking(() => Picture.sample(name));
    if (one) await use(one);
  }

  /** Several pictures: small ones beside each other, any of which can be opened. */
  async function contact(files) {
    if (files.length > MOST_AT_ONCE) note("picture", `These are the first ${MOST_AT_ONCE} of ${files.length} pictures.`);
    const mine = (turn += 1);
    const wanted = { ...settings, crop: "", beside: "", sample: "" };
    sheet = files.slice(0, MOST_AT_ONCE).map((file) => ({ file, run: null, fault: "" }));
    settings = wanted;
    toSheet();
    busy(true);
    const waiting = [...sheet];
    const work = async () => {
      for (let cell = waiting.shift(); cell && mine === turn; cell = waiting.shift()) await expose(cell, wanted);
    };
    await Promise.all(Array.from({ length: TOGETHER }, work));
    if (mine !== turn) return;
    busy(false);
    say(`${sheet.filter((cell) => cell.run).length} of ${sheet.length} pictures are explained.`);
  }

  async function expose(cell, wanted) {
    const one = await Picture.load(cell.file, cell.file.name);
    cell.run = await patiently(() => request(one, wanted).catch((error) => {
      if (error.away) throw error;
      cell.fault = error.message;
      return null;
    }), () => true);
    if (cell.run) visit.add(cell.run);
    cells();
    visit.show(run);
  }

  function toSheet() {
    $("sheet").hidden = false;
    $("panels").hidden = true;
    $("drop").hidden = true;
    $("to-sheet").hidden = true;
    cells();
  }

  function unsheet() {
    $("sheet").hidden = true;
    $("to-sheet").hidden = !sheet.length;
  }

  function cells() {
    fill($("sheet"), sheet.map(({ file, run: done, fault }) => done
      ? Visit.card(done, done === run, open)
      : make("div", { class: fault ? "card wrong" : "card skeleton" }, make("span", { class: "name" }, file.name), make("span", {}, fault || "waiting …"))));
  }

  // --- showing --------------------------------------------------------------------------------------------------

  /** Goes to a run of this visit, with the settings it was asked with. */
  async function open(one) {
    const asked = Object.fromEntries([...Settings.ASKS, "crop", "beside", "sample"].map((name) => [name, one.settings[name]]));
    settings = { ...settings, ...asked };
    ({ picture } = one);
    run = one;
    unsheet();
    controls.contrasts(run.answer.predictions);
    controls.update(settings);
    crop.show(picture, Boolean(settings.crop));
    remember();
    show();
    await complete();
    if (run === one) show();
  }

  /** Which map stands in which panel: the first class and another, or a part beside the whole. */
  function views() {
    if (!run) return picture ? [{ picture, look: settings, label: "", summary: picture.name, sentence: "" }] : [];
    const chosen = settings.beside === "" ? null : Number(settings.beside);
    if (run.before) return [view(run.before, chosen, "Before"), view(run, chosen, "After")];
    return [view(run, null, ""), ...(chosen === null ? [] : [view(run, chosen, "")])];
  }

  function view(one, chosen, when) {
    const id = chosen ?? one.first?.class_id ?? one.answer.predictions[0].class_id;
    const entry = one.entries.get(id);
    const predicted = one.answer.predictions.find(({ class_id: known }) => known === id);
    const label = entry?.label ?? predicted?.label ?? controls.description?.classes[id] ?? String(id);
    const chance = predicted ? Words.percent(predicted.probability) : "";
    const sentence = Words.withoutMaps(one.answer.explanation) ?? (entry ? Words.sentence(entry) : "");
    return {
      picture: one.picture,
      evidence: one.evidence(id),
      regions: entry?.regions,
      look: settings,
      run: one,
      entry,
      label,
      chance: [when, chance].filter(Boolean).join(": "),
      sentence,
      what: [one.detail, one.answer.explanation?.exact ? "exact" : ""].filter(Boolean).join(", "),
      summary: `${one.picture.name}, ${label} ${chance}. ${sentence}`,
    };
  }

  /** Draws everything anew from what is known. */
  function show() {
    const shown = views();
    if ($("sheet").hidden) {
      $("drop").hidden = Boolean(picture);
      $("panels").hidden = !picture;
    }
    $("panels").classList.toggle("two", shown.length > 1);
    panels.forEach((panel, at) => caption(panel, shown[at] ?? null));
    visit.show(run);
    exportable(Boolean(shown[0]?.evidence));
    if (!run) return;
    const [first] = shown;
    Findings.predictions(run.answer, run.before?.answer, shown.map((one) => one.entry?.class_id), choose);
    const spoken = run.before ? shown[1] : first;
    Findings.trust(spoken.entry, spoken.run.answer.explanation ?? {});
    Findings.verified(spoken.entry);
    Findings.timing(run);
    $("curl").value = Export.curl(run);
  }

  function caption(panel, one) {
    const figure = panel.frame.closest("figure");
    figure.hidden = !one;
    if (one) {
      for (const part of ["label", "chance", "sentence", "what"]) figure.querySelector(`.${part}`).textContent = one[part] ?? "";
    }
    panel.show(one);
  }

  function exportable(has) {
    for (const id of ["save-overlay", "save-grid"]) $(id).disabled = !has;
    for (const id of ["save-json", "copy-curl"]) $(id).disabled = !run;
  }

  /** The box that is being drawn, on every panel of the picture. */
  function mark(box) {
    for (const panel of panels) {
      panel.box = box;
      panel.draw();
    }
  }

  /** The evidence at a point, in all panels. */
  function read(point, spoken = false) {
    for (const panel of panels) {
      panel.point = point;
      panel.draw();
    }
    const seen = panels.filter((panel) => panel.view?.evidence);
    const readings = point ? seen.map(({ view: { evidence, label } }) => `${label}: ${Words.reading(evidence, ...point)}`) : [];
    $("reading").textContent = readings.join("   ·   ") || "Point at the picture to read the evidence there; draw a box to look at a part again.";
    if (spoken) say(readings.join(". "));
  }

  function busy(on) {
    $("busy").classList.toggle("on", on);
    $("stage").setAttribute("aria-busy", String(on));
  }

  function away(message) {
    $("away").hidden = !message;
    $("away").textContent = message;
  }

  function note(name, text) {
    $(`${name}-note`).textContent = text;
    $(`${name}-note`).classList.toggle("wrong", Boolean(text));
  }

  const remember = () => history.replaceState(null, "", `${location.pathname}${Settings.search(settings)}`);

  // --- starting -------------------------------------------------------------------------------------------------

  function gestures() {
    for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
      $(button).addEventListener("click", () => $(input).click());
      $(input).addEventListener("change", ({ target }) => {
        take([...target.files]);
        target.value = "";
      });
    }
    const over = (on) => (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", on);
    };
    document.addEventListener("dragover", over(true));
    document.addEventListener("dragleave", over(false));
    document.addEventListener("drop", (event) => {
      over(false)(event);
      take([...event.dataTransfer.files]);
    });
    document.addEventListener("paste", (event) => event.clipboardData.files.length && take([...event.clipboardData.files]));
    $("to-sheet").addEventListener("click", toSheet);
    $("another").addEventListener("change", ({ target }) => another(target));
    $("theme").addEventListener("click", theme);
    theme();
  }

  function another(field) {
    const id = controls.classOf(field.value);
    note("classes", "");
    if (!field.value.trim()) return;
    if (id === null) note("classes", `The model has no class “${field.value}”.`);
    else if (!run) note("classes", "Choose a picture first.");
    else {
      field.value = "";
      if (settings.beside !== String(id)) choose(id);
    }
  }

  /** Light or dark: the system's choice until the button is used; called with a click it changes it. */
  function theme(event) {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    const next = event ? { dark: "light", light: "dark" }[now] : now;
    if (event) root.dataset.theme = next;
    $("theme").textContent = next === "dark" ? "Light" : "Dark";
    $("theme").setAttribute("aria-label", `Change to ${next === "dark" ? "light" : "dark"} colours`);
  }

  function takeaway() {
    const first = () => (run.before ? panels[1] : panels[0]);
    $("save-overlay").addEventListener("click", () => Export.overlay(run, first().view.entry, first()));
    $("save-grid").addEventListener("click", () => Export.grid(run, first().view.entry, first().view.evidence));
    $("save-json").addEventListener("click", () => Export.json(run));
    $("copy-curl").addEventListener("click", async () => {
      const done = await Export.copy($("curl"));
      say(done ? "Copied." : "The command is selected: copy it with Ctrl and C.");
      $("copy-curl").textContent = done ? "Copied" : "Selected";
      setTimeout(() => { $("copy-curl").textContent = "Copy as curl"; }, 2000);
    });
  }

  /** The samples, where there is a gateway to give them. */
  async function samples() {
    const there = await Promise.all(Picture.SAMPLES.map((name) => fetch(`/page/samples/${name}.jpg`, { method: "HEAD" }).then((answer) => answer.ok, () => false)));
    const names = Picture.SAMPLES.filter((_, at) => there[at]);
    fill($("samples"), names.map((name) => make("button", { type: "button", "aria-label": `Sample: ${name}`, title: name, click: () => sample(name) },
      make("img", { src: `/page/samples/${name}.jpg`, alt: "", width: 48, height: 36 }))));
  }

  async function start() {
    gestures();
    takeaway();
    exportable(false);
    Findings.waiting();
    samples();
    const description = await patiently(async () => {
      await Service.open();
      return Service.describe();
    }, () => true);
    if (!description) return;
    const { name, version, architecture } = description.model;
    $("model").textContent = `${name} ${version} · ${architecture} · ${description.classes.length} classes`;
    document.title = `${name} · camserve inspector`;
    controls.describe(description);
    if (Picture.SAMPLES.includes(settings.sample)) await sample(settings.sample);
  }

  start();
  return { get run() { return run; } };
})();
