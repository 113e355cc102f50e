"use strict";

/** The ways in which a picture comes to the page: chosen, photographed, dropped, pasted, or one of the samples. */
class Entrance {
  /** `take(pictures)` gets image files, `sample(name)` the wish for a sample. */
  constructor({ take, sample }) {
    this.take = take;
    this.sample = sample;
    for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) this.#chooser(Dom.$(button), Dom.$(input));
    this.#drop();
    document.addEventListener("paste", ({ clipboardData: { files } }) => files.length && this.#files(files));
    this.#samples();
  }

  #chooser(button, input) {
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.#files(input.files);
      input.value = "";
    });
  }

  #drop() {
    const over = (on) => (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", on);
    };
    document.addEventListener("dragover", over(true));
    document.addEventListener("dragleave", over(false));
    document.addEventListener("drop", (event) => {
      over(false)(event);
      this.#files(event.dataTransfer.files);
    });
  }

  /** Whatever has a type that is surely no picture is left out; if nothing is left, that is said. */
  #files(files) {
    const pictures = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
    const [first] = files;
    Entrance.note(first && !pictures.length ? `${first.name} is no picture: it has the type ${first.type}.` : "");
    if (pictures.length) this.take(pictures);
  }

  /** The samples, where there is a gateway to give them. */
  async #samples() {
    const there = await Promise.all(Picture.SAMPLES.map(
      (name) => fetch(Picture.path(name), { method: "HEAD" }).then((answer) => answer.ok, () => false)));
    const names = Picture.SAMPLES.filter((_, at) => there[at]);
    Dom.fill(Dom.$("samples"), names.map((name) => Dom.make(
      "button", { type: "button", "aria-label": `Sample: ${name}`, click: () => this.sample(name) },
      Dom.make("img", { src: Picture.path(name), alt: "", width: 48, height: 36 }))));
  }

  /** Says what is wrong with a picture, beside the button that chose it. */
  static note(text) {
    Dom.$("picture-note").textContent = text;
    Dom.$("picture-note").classList.toggle("wrong", Boolean(text));
  }
}
