"use strict";

/** Requests that outlast a server that is away, and of which only the newest counts. */
class Patience {
  static TRIES = 3; // of a request that fails although the server is ready

  /** `refused(refusal)` hears of what will not succeed. */
  constructor(refused) {
    this.refused = refused;
    this.turn = 0;
    this.controller = new AbortController();
  }

  /** What a person waits for: a newer wish takes the place of an older one, whose result is null. */
  async newest(work) {
    const mine = this.begin();
    const { signal } = this.controller;
    const result = await this.outlast(() => work(signal), () => mine === this.turn);
    return this.end(mine) ? result : null;
  }

  /** A wish of a person's begins; older ones are given up. Returns its number. */
  begin() {
    this.controller.abort();
    this.controller = new AbortController();
    this.turn += 1;
    this.#busy(true);
    return this.turn;
  }

  /** The wish of that number has ended; whether it still counts. */
  end(mine) {
    if (mine === this.turn) this.#busy(false);
    return mine === this.turn;
  }

  /** The result of `work`, tried again when the server is back; null where it is refused or no longer `current`. */
  async outlast(work, current = () => true) {
    for (let tries = 1; current(); tries += 1) {
      try {
        const result = await work();
        this.#away("");
        return result;
      } catch (error) {
        if (error.name === "AbortError" || !current()) return null;
        if (!(error instanceof Service.Refusal)) throw error;
        if (!error.away || tries === Patience.TRIES) {
          this.#away("");
          this.refused(error);
          return null;
        }
        this.#away(`${error.message} Trying again …`);
        await Service.back();
      }
    }
    return null;
  }

  #busy(on) {
    Dom.$("busy").classList.toggle("on", on);
    Dom.$("stage").setAttribute("aria-busy", String(on));
  }

  #away(message) {
    Dom.$("away").hidden = !message;
    Dom.$("away").textContent = message;
  }
}
