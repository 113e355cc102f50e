"use strict";

/** Several pictures at once: small ones beside each other, any of which can be opened. */
class Sheet {
  static TOGETHER = 2; // requests at a time
  static MOST = 50; // pictures

  /** `ask(picture)` gives a run, `done(run)` hears of each, `open(run)` of the one that is chosen. */
  constructor(patience, { ask, done, open }) {
    Object.assign(this, { patience, ask, done, open });
    this.cells = [];
    Dom.$("to-sheet").addEventListener("click", () => this.show());
  }

  /** Explains all pictures; returns when that is done or something else is wanted. */
  async explain(files) {
    const mine = this.patience.begin();
    const cells = files.slice(0, Sheet.MOST).map((file) => ({ file, run: null, fault: "" }));
    this.cells = cells;
    this.show();
    const waiting = [...cells];
    const work = async () => {
      for (let cell = waiting.shift(); cell && mine === this.patience.turn; cell = waiting.shift()) await this.#expose(cell);
    };
    await Promise.all(Array.from({ length: Sheet.TOGETHER }, work));
    const explained = cells.filter((cell) => cell.run).length;
    if (this.patience.end(mine)) return Dom.say(`${explained} of ${cells.length} pictures are explained.`);
    for (const cell of cells) if (!cell.run) cell.fault ||= "not explained: something else was asked";
    this.#draw();
  }

  async #expose(cell) {
    const asked = () => Picture.load(cell.file, cell.file.name).then(this.ask);
    cell.run = await this.patience.outlast(() => asked().catch((error) => {
      if (error.away) throw error;
      cell.fault = error.message;
      return null;
    }));
    if (cell.run) this.done(cell.run);
    else cell.fault ||= "The server did not answer.";
    this.#draw();
  }

  show() {
    for (const id of ["panels", "drop", "to-sheet"]) Dom.$(id).hidden = true;
    Dom.$("sheet").hidden = false;
    this.#draw();
    Dom.$("sheet").querySelector("button")?.focus();
  }

  /** Makes room for one picture; a button leads back. */
  hide() {
    if (Dom.$("sheet").contains(document.activeElement)) Dom.$("stage").focus();
    Dom.$("sheet").hidden = true;
    Dom.$("to-sheet").hidden = !this.cells.length;
  }

  get shown() {
    return !Dom.$("sheet").hidden;
  }

  #draw() {
    Dom.fill(Dom.$("sheet"), this.cells.map(({ file, run, fault }) => (run
      ? Visit.card(run, false, this.open)
      : Dom.make("div", { class: fault ? "card wrong" : "card skeleton" },
        Dom.make("span", { class: "name" }, file.name), Dom.make("span", {}, fault || "waiting …")))));
  }
}
