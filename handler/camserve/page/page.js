"use strict";

/** The page itself: what is seen now, and what happens when something is asked. */
const Page = (() => {
  const { $, say } = Dom;
  const HINT = $("reading").textContent;

  let settings = Settings.read(location.search);
  let picture = null;
  let run = null;

  const controls = new Controls(settings, change);
  const visit = new Visit(open);
  const patience = new Patience((refusal) => controls.refuse(refusal));
  const sheet = new Sheet(patience, { ask: (one) => request(one, settings), done: keep, open });
  const listen = { point: read, draw: (box) => crop.draw(box), drawn: () => crop.drawn() };
  const panels = [...document.querySelectorAll(".panel")].map((element) => new Panel(element, listen));
  const crop = new Crop({ changed: mark, run: (text) => change("crop", text) });

  // --- asking ---------------------------------------------------------------------------------------------------

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

  /** Asks about the picture as the settings say; about a part of it also as a whole, to compare. */
  async function ask() {
    if (!picture) return;
    controls.clear();
    Entrance.note("");
    const one = picture;
    const wanted = { ...settings };
    const whole = [run, run?.before].find((known) => known && !known.settings.crop && known.asks(one, wanted));
    const done = await patience.newest(async (signal) => {
      const before = wanted.crop ? whole || await request(one, { ...wanted, crop: "" }, signal) : null;
      return Object.assign(await request(one, wanted, signal), { before });
    });
    if (!done) return;
    visit.add(done);
    await open(done);
    say(`${done.headline}. ${panels[0].view.sentence}`);
  }

  /** Asks for the maps that are to be seen and were not in the answer; whether there were any. */
  async function complete() {
    const id = Number(settings.beside);
    const missing = settings.beside === "" ? [] : [run.before, run].filter((one) => one && !one.entries.has(id));
    for (const one of missing) {
      const wanted = { ...settings, crop: one.settings.crop };
      const more = await patience.newest((signal) => request(one.picture, wanted, signal, [id]));
      if (more) one.merge(more.answer);
    }
    return missing.length > 0;
  }

  // --- what a person does ---------------------------------------------------------------------------------------

  /** A choice: some change what is asked, others only how an answer is drawn. */
  function change(name, value) {
    settings = { ...settings, [name]: value };
    controls.update(settings);
    remember();
    if (Settings.ASKS.includes(name) || name === "crop") ask();
    else show();
  }

  /** A class: its map beside the first, or away again. */
  async function choose(id) {
    if (!run) return;
    const { takes, title } = controls.method;
    if (!takes.classes && id !== run.first?.class_id) {
      controls.note("classes", `${title} looks at no class: its map is the same for all.`);
      return;
    }
    const plain = !run.before && id === run.first?.class_id;
    settings = { ...settings, beside: plain || settings.beside === String(id) ? "" : String(id) };
    run.settings.beside = settings.beside;
    await open(run);
    say(panels[settings.beside && !run.before ? 1 : 0].view.summary);
  }

  /** A class by its name. */
  function another({ target: field }) {
    const id = controls.classOf(field.value);
    controls.note("classes", "");
    if (!field.value.trim()) return;
    if (id === null) controls.note("classes", `The model has no class “${field.value}”.`);
    else if (!run) controls.note("classes", "Choose a picture first.");
    else {
      field.value = "";
      if (settings.beside !== String(id)) choose(id);
    }
  }

  /** Pictures that came in: one is shown and explained, several give a contact sheet. */
  async function take(files) {
    if (files.length === 1) {
      const one = await patience.newest(() => Picture.load(files[0], files[0].name || "pasted.png"));
      return one && use(one);
    }
    settings = { ...settings, crop: "", beside: "", sample: "" };
    picture = null;
    run = null;
    remember();
    crop.show(null, "");
    Findings.waiting();
    const explained = sheet.explain(files);
    show();
    await explained;
    if (files.length > Sheet.MOST) Entrance.note(`These are the first ${Sheet.MOST} of ${files.length} pictures.`);
  }

  async function sample(name) {
    Entrance.note("");
    const one = await patience.newest(() => Picture.sample(name));
    if (one) await use(one);
  }

  /** Shows a picture at once and asks about it. */
  async function use(one) {
    const same = one.sample && one.sample === settings.sample;
    settings = { ...settings, sample: one.sample, ...(same ? {} : { crop: "", beside: "" }) };
    picture = one;
    run = null;
    remember();
    sheet.hide();
    crop.show(one, "");
    show();
    Findings.waiting();
    await ask();
  }

  // --- showing --------------------------------------------------------------------------------------------------

  /** Goes to a run of this visit, with the settings it was asked with. */
  async function open(one) {
    const asked = [...Settings.ASKS, "crop", "beside", "sample"].map((name) => [name, one.settings[name]]);
    settings = { ...settings, ...Object.fromEntries(asked) };
    picture = one.picture;
    run = one;
    sheet.hide();
    controls.contrasts(run.answer.predictions);
    controls.update(settings);
    crop.show(picture, settings.crop);
    mark(crop.box);
    remember();
    show();
    if (await complete() && run === one) show();
  }

  /** Keeps a run without going to it. */
  function keep(one) {
    visit.add(one);
    visit.show(run);
  }

  /** Draws everything anew from what is known. */
  function show() {
    const views = View.all(run, picture, settings, controls.description?.classes ?? []);
    $("drop").hidden = Boolean(picture) || sheet.shown;
    $("panels").hidden = !picture || sheet.shown;
    $("panels").classList.toggle("two", views.length > 1);
    panels.forEach((panel, at) => View.put(panel, views[at] ?? null));
    visit.show(run);
    for (const id of ["save-overlay", "save-grid"]) $(id).disabled = !views.at(-1)?.evidence;
    for (const id of ["save-json", "copy-curl"]) $(id).disabled = !run;
    if (!run) return;
    Findings.predictions(run.answer, run.before?.answer, views.map(({ id }) => id), choose);
    const judged = run.before ? views[1] : views[0];
    Findings.trust(judged.entry, run.answer.explanation ?? {});
    Findings.verified(judged.entry);
    Findings.timing(run);
    $("curl").value = Export.curl(run);
  }

  /** The box that is being drawn, on every panel; the part that is shown already has its frame. */
  function mark(box) {
    for (const panel of panels) panel.mark({ box: crop && crop.text === settings.crop ? null : box });
  }

  /** The evidence at a point, in all panels. */
  function read(point, spoken = false) {
    for (const panel of panels) panel.mark({ point });
    const seen = panels.filter(({ view }) => point && view?.evidence);
    const readings = seen.map(({ view: { evidence, label } }) => `${label}: ${Words.reading(evidence, ...point)}`);
    $("reading").textContent = readings.join("   ·   ") || HINT;
    if (spoken) say(readings.join(". "));
  }

  const remember = () => history.replaceState(null, "", `${location.pathname}${Settings.search(settings)}`);

  // --- starting -------------------------------------------------------------------------------------------------

  /** Light or dark: the system's choice until the button is used. */
  function theme(event) {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    const next = event ? { dark: "light", light: "dark" }[now] : now;
    if (event) root.dataset.theme = next;
    $("theme").textContent = next === "dark" ? "Light colours" : "Dark colours";
  }

  /** What is saved is the map that was asked for last: the chosen class's, or the part's. */
  function takeaway() {
    const last = () => panels[panels[1].view ? 1 : 0];
    $("save-overlay").addEventListener("click", () => Export.overlay(last()));
    $("save-grid").addEventListener("click", () => Export.grid(last().view));
    $("save-json").addEventListener("click", () => Export.json(run));
    $("copy-curl").addEventListener("click", async ({ target }) => {
      const done = await Export.copy($("curl"));
      say(done ? "Copied." : "The command is selected: copy it with Ctrl and C.");
      target.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { target.textContent = "Copy as curl"; }, 2000);
    });
  }

  async function start() {
    new Entrance({ take, sample });
    takeaway();
    $("another").addEventListener("change", another);
    $("theme").addEventListener("click", theme);
    theme();
    Findings.waiting();
    show();
    const description = await patience.outlast(() => Service.open().then(Service.describe));
    if (!description) return;
    const { name, version, architecture } = description.model;
    $("model").textContent = `${name} ${version} · ${architecture} · ${description.classes.length} classes`;
    document.title = `${name} · camserve inspector`;
    controls.describe(description);
    if (Picture.SAMPLES.includes(settings.sample)) await sample(settings.sample);
  }

  start();
})();
