"use strict";

/** Small help with the document. What comes from outside is only ever set as text. */
const Dom = (() => {
  /** The element of that id. */
  const $ = (id) => document.getElementById(id);

  /** A new element: `make("p", {class: "note"}, "text", child)`. A function becomes a listener, null is left out. */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(name, value);
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children.flat().filter((child) => child !== null));
    return element;
  }

  /** Puts `children` in place of what an element holds. */
  function fill(element, ...children) {
    element.replaceChildren(...children.flat().filter((child) => child !== null));
  }

  /** Has a screen reader say a sentence. */
  function say(sentence) {
    $("spoken").textContent = sentence;
  }

  return { $, make, fill, say };
})();
