"use strict";

/** What an answer means, in sentences. */
const Words = (() => {
  const FLAGS = {
    empty: "Nothing in the picture speaks for this class.",
    flat: "The evidence is spread over the whole picture: the map points nowhere.",
    border_hugging: "The evidence lies along the border. That is often an artefact, or a shortcut the model has learnt.",
    single_cell: "One cell holds more than half of the evidence: look closely at what is there.",
    not_class_discriminative: "This method looks at no class: the map would be the same for any other.",
    low_margin: "The two likeliest classes are close: a small change of the picture may swap them.",
  };
  const STAGES = {
    queue: "waiting in the queue",
    decode: "reading the file",
    preprocess: "preparing the input",
    forward: "the network",
    explain: "the maps",
    render: "drawing",
    encode: "packing pictures",
    rest: "transfer and browser",
  };

  const percent = (share) => `${share > 0 && share < 0.1 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
  const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2)).replace("-", "−");
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  /** What the strongest box holds; what is shown decides what the evidence is for. */
  function sentence(entry) {
    if (entry.status === "failed" && !entry.grid) return `There is no map: ${entry.reason}`;
    if (entry.status === "empty_map") return empty(entry);
    const [region] = entry.regions || [];
    if (!region) return "The evidence forms no region.";
    const speaks = {
      positive: entry.contrast ? `of what favours it over “${entry.contrast.label}”` : "of the evidence",
      negative: entry.contrast ? `of what favours “${entry.contrast.label}”` : "of what speaks against it",
      both: entry.contrast ? `of what favours it over “${entry.contrast.label}”` : "of what speaks for it",
    }[entry.polarity];
    return `${percent(region.share)} ${speaks} lies in this box.`;
  }

  function empty(entry) {
    const rather = entry.contrast ? ` rather than “${entry.contrast.label}”` : "";
    const speaks = { positive: "speaks for it", negative: "speaks against it", both: "speaks for or against it" };
    return `Nothing in the picture ${speaks[entry.polarity]}${rather}: the plain picture is shown.`;
  }

  /** Why an answer has no maps at all; null where it has. */
  function withoutMaps(explanation) {
    return {
      shed: "The server is busy and left the maps out; the prediction is complete. Try again in a moment.",
      not_needed: "The model's own rule did not ask for an explanation here.",
      failed: explanation?.classes?.length ? null : "The maps could not be made; the prediction is complete.",
    }[explanation?.status ?? "not_needed"] ?? null;
  }

  /** What stands behind a map: one sentence a flag, or that there is none. */
  function trust(quality) {
    if (!quality) return [];
    if (!quality.flags.length) return [{ warns: false, text: "Nothing about this map is suspicious." }];
    return quality.flags.map((flag) => ({ warns: true, text: FLAGS[flag] || capital(flag.replaceAll("_", " ")) }));
  }

  /** The numbers of a map's quality, as pairs of name and value. */
  function quality(one) {
    const parts = [
      ["For it, rather than against it", one.positive_share],
      ["Spread over what was seen", one.entropy],
      ["At the border", one.border_share],
    ];
    return parts.filter(([, value]) => value !== null).map(([name, value]) => [name, percent(value)]);
  }

  /** Where the logit comes from, for exact maps. */
  function ledger(entry, exact) {
    if (!entry.ledger) return exact ? null : "The values of this map are in no unit: they compare places, nothing more.";
    const { evidence, bias, logit } = entry.ledger;
    return `It adds up: evidence ${number(evidence)} and bias ${number(bias)} make the logit ${number(logit)}.`;
  }

  /** What hiding the map's top cells does, beside its control. */
  function verified(one) {
    const control = one.without_random.reduce((sum, value) => sum + value, 0) / one.without_random.length;
    const drop = one.probability - one.without_top;
    const beside = one.probability - control;
    const holds = drop > 0 && drop > 1.5 * Math.max(beside, 0);
    const verdict = holds
      ? "The map found what the prediction rests on."
      : "Hiding it costs no more than hiding other places: do not rely on this map.";
    const text = `Without the strongest ${percent(one.area)} the probability goes from ${percent(one.probability)} to ` +
      `${percent(one.without_top)}. Without as much elsewhere it goes to ${percent(control)}.`;
    return { holds, verdict, text, bars: [["as it is", one.probability], ["without the evidence", one.without_top], ["without as much elsewhere", control]] };
  }

  /** What is at a point of the picture. */
  function reading(evidence, x, y) {
    const value = evidence.at(x, y);
    const place = `${Math.floor(x)}, ${Math.floor(y)}`;
    if (value === null) return `${place}: the network did not see this part`;
    const size = evidence.peak ? Math.abs(value) / evidence.peak : 0;
    const side = value > 0 ? "for" : "against";
    return `${place}: ${number(value)} ${side} it, ${percent(Math.min(size, 1))} of the peak`;
  }

  /** Why a method cannot be used at a layer; null where it can. */
  function unavailable(method, layer, description) {
    const limit = description.limits.max_forwards;
    if (method.forwards > 1) {
      const forwards = layer?.channels ?? method.forwards;
      return forwards > limit ? `needs ${forwards} forward passes, this server allows ${limit}` : null;
    }
    if (method.available) return null;
    return method.takes.layer || method.forwards
      ? "does not know this network's activation function"
      : "needs pooling and one linear layer at the end of the network";
  }

  return { STAGES, percent, number, sentence, withoutMaps, trust, quality, ledger, verified, reading, unavailable };
})();
