"use strict";

/** The public API, as any client uses it. */
const Service = (() => {
  const PAUSE = 1500; // milliseconds between two looks whether the server is back
  const NAME = /^\w[\w.-]{0,99}$/;
  const native = document.documentElement.hasAttribute("data-native");
  let name = document.documentElement.dataset.model || "";
  let most = 0;

  /** What the server said instead of an answer. `away` is set where another try may succeed. */
  class Refusal extends Error {
    constructor(message, status = 0) {
      super(message);
      this.status = status;
      this.away = status === 0 || status >= 500;
    }

    /** The option at fault, if the message names one. */
    get option() {
      return /^(?:Unknown option|Option) '(\w+)'/.exec(this.message)?.[1] ?? null;
    }
  }

  /** Finds out which model this page is about: the URL's, the page's own, or the one the gateway was started for. */
  async function open() {
    const wanted = new URLSearchParams(location.search).get("model");
    if (wanted !== null && !NAME.test(wanted)) {
      throw new Refusal("The address names no model: a name has letters, digits, _ . and - only.", 400);
    }
    if (!native) {
      const gateway = await json("/page/gateway.json").catch((error) => {
        if (error.away) throw error;
        return {};
      });
      name = wanted || name || gateway.model || "";
      most = bytes(gateway.max_body || "");
    }
    name = wanted || name;
  }

  /** "20m" in bytes; 0 where there is no limit. */
  function bytes(text) {
    const [, number, unit] = /^(\d+)([kmg]?)$/i.exec(text) || [0, 0, ""];
    return number * { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }[unit.toLowerCase()];
  }

  /** The model's path: with its version if the page's own path has it. */
  function path() {
    const { version } = document.documentElement.dataset;
    const versioned = version && location.pathname.split("/").includes(version) ? `/${version}` : "";
    return native ? `/${name}${versioned}/predict` : `/predictions/${name}${versioned}`;
  }

  /** The address of a request, options and all. */
  function address(options) {
    const query = new URLSearchParams(options).toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
    return `${location.origin}${path()}${query && `?${query}`}`;
  }

  /** What the model can do. */
  const describe = () => json(path(), { headers: { Accept: "application/json", ...(native && { describe: "true" }) } });

  /** The answer for a picture. */
  async function predict(blob, options, signal) {
    if (most && blob.size > most) {
      const size = (blob.size / 2 ** 20).toFixed(1);
      throw new Refusal(`The file has ${size} MB and this server takes ${most / 2 ** 20} MB: send a smaller picture.`, 413);
    }
    const headers = { Accept: "application/json", "Content-Type": "application/octet-stream" };
    return json(address(options), { method: "POST", body: blob, headers, signal });
  }

  /** Resolves when the server answers again. `Service.PAUSE` lies between two tries. */
  async function back() {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      try {
        await (native || !name ? open().then(describe) : json(`/ready/${name}`));
        return;
      } catch (error) {
        if (!error.away) return;
      }
    }
  }

  async function json(url, request) {
    let answer;
    try {
      answer = await fetch(url, request);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The server cannot be reached.");
    }
    const body = await answer.json().catch(() => null);
    if (answer.ok && body) return body;
    throw new Refusal(body?.message || `The server answered ${answer.status} without a reason.`, answer.status || 502);
  }

  return { Refusal, open, address, describe, predict, back, get name() { return name; } };
})();
