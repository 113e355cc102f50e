"use strict";

/** What an answer says, beside the picture: predictions, trust, verification, time. */
const Findings = (() => {
  const { $, make, fill } = Dom;

  /**
   * The predictions as bars. `before` is an answer to compare with (of the whole picture, under a crop), `shown` the
   * ids whose maps are seen; `choose(id)` is called for a click.
   */
  function predictions(answer, before, shown, choose) {
    const earlier = new Map(before?.predictions.map((one) => [one.class_id, one.probability]));
    const keep = document.activeElement?.closest("#predictions button")?.dataset.id;
    const rows = answer.predictions.map((one) => {
      const was = earlier.get(one.class_id);
      const chance = Words.percent(one.probability);
      const label = make("button", {
        type: "button",
        class: "prediction",
        "data-id": one.class_id,
        "aria-pressed": String(shown.includes(one.class_id)),
        click: () => choose(one.class_id),
      },
      make("span", { class: "name" }, one.label),
      make("span", { class: "chance" }, before ? `${was === undefined ? "less" : Words.percent(was)} → ${chance}` : chance),
      bar(one.probability, was));
      return make("li", {}, label);
    });
    fill($("predictions"), rows);
    if (keep) document.querySelector(`#predictions [data-id="${CSS.escape(keep)}"]`)?.focus();
  }

  function bar(share, was) {
    const parts = [make("span", { class: "fill" })];
    if (was !== undefined) parts.push(make("span", { class: "was" }));
    parts[0].style.width = `${100 * share}%`;
    if (parts[1]) parts[1].style.left = `${100 * was}%`;
    return make("span", { class: "meter", "aria-hidden": "true" }, parts);
  }

  /** Rows that hold the place of predictions to come. */
  function waiting() {
    fill($("predictions"), Array.from({ length: Settings.TOP }, () => make("li", { class: "skeleton", "aria-hidden": "true" })));
  }

  /** How far the first map deserves trust, and whether it adds up. */
  function trust(entry, explanation) {
    const sentences = Words.trust(entry?.quality);
    fill($("trust"), sentences.map(({ warns, text }) => make("li", { class: warns ? "warns" : "fine" }, text)));
    $("ledger").textContent = (entry && Words.ledger(entry, explanation.exact)) || "";
    const pairs = entry?.quality ? Words.quality(entry.quality) : [];
    fill($("quality"), pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }

  /** What the deletion check measured. */
  function verified(entry) {
    if (!entry?.verify) return fill($("verified"));
    const { holds, verdict, text, bars } = Words.verified(entry.verify);
    const rows = bars.map(([name, share]) => make("div", { class: "check-row" }, make("span", {}, name), make("span", {}, Words.percent(share)), bar(share)));
    return fill($("verified"), make("p", { class: holds ? "fine" : "warns" }, verdict), rows, make("p", { class: "small quiet" }, text));
  }

  /** How long each stage took, in milliseconds. */
  function timing(run) {
    const stages = Object.entries(run.answer.timing_ms).filter(([, ms]) => ms !== null);
    const known = stages.reduce((sum, [, ms]) => sum + ms, 0);
    stages.push(["rest", Math.max(0, run.ms - known)]);
    const longest = Math.max(...stages.map(([, ms]) => ms), 1);
    const rows = stages.flatMap(([name, ms]) => {
      const line = make("dd", {}, `${ms.toFixed(ms < 10 ? 1 : 0)} ms`);
      line.style.setProperty("--share", `${(100 * ms) / longest}%`);
      return [make("dt", {}, Words.STAGES[name] || name), line];
    });
    fill($("timing"), rows, make("dt", { class: "sum" }, "all"), make("dd", { class: "sum" }, `${run.ms.toFixed(0)} ms`));
  }

  return { predictions, waiting, trust, verified, timing };
})();
