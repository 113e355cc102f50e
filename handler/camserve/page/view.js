"use strict";

/** What stands in the panels: which run's map of which class, and what is written below it. */
const View = (() => {
  /** One panel or two: the first class and the chosen one, or a part beside the whole. */
  function all(run, picture, settings, labels) {
    if (!run) return picture ? [{ picture, look: settings, summary: picture.name }] : [];
    const chosen = settings.beside === "" ? null : Number(settings.beside);
    const cut = run.answer.image.crop;
    const make = (one, id, when) => ({ ...view(one, id, when, settings, labels), cut });
    if (run.before) return [make(run.before, chosen, "Whole"), make(run, chosen, "Part")];
    return [make(run, null, ""), ...(chosen === null ? [] : [make(run, chosen, "")])];
  }

  function view(run, chosen, when, look, labels) {
    const id = chosen ?? run.first?.class_id ?? run.answer.predictions[0].class_id;
    const entry = run.entries.get(id);
    const predicted = run.answer.predictions.find(({ class_id: known }) => known === id);
    const label = entry?.label ?? predicted?.label ?? labels[id] ?? String(id);
    const chance = predicted ? Words.percent(predicted.probability) : "";
    const sentence = Words.withoutMaps(run.answer.explanation) ?? (entry ? Words.sentence(entry) : "");
    return {
      picture: run.picture,
      evidence: run.evidence(id),
      regions: entry?.regions,
      look,
      run,
      id,
      entry,
      label,
      chance: [when, chance].filter(Boolean).join(": "),
      sentence,
      what: [run.detail, run.answer.explanation?.exact ? "exact" : ""].filter(Boolean).join(", "),
      summary: `${run.picture.name}, ${label} ${chance}. ${sentence}`,
    };
  }

  /** Puts a view into a panel and its words below; null hides the panel. */
  function put(panel, one) {
    const figure = panel.frame.closest("figure");
    figure.hidden = !one;
    for (const part of ["label", "chance", "sentence", "what"]) figure.querySelector(`.${part}`).textContent = one?.[part] ?? "";
    panel.show(one);
  }

  return { all, put };
})();
