"use strict";

/** What can be taken away: the request as curl, the overlay, the grid and the answer as files. */
const Export = (() => {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  /** The request that was sent, for a shell beside the picture. */
  function curl(run) {
    const file = run.picture.name.startsWith("-") ? `./${run.picture.name}` : run.picture.name;
    return `curl -sg -T ${quoted(file)} ${quoted(Service.address(run.options))}`;
  }

  /** Copies; where the browser does not allow it the text is selected, ready to be copied by hand. */
  async function copy(field) {
    try {
      await navigator.clipboard.writeText(field.value);
      return true;
    } catch {
      field.focus();
      field.select();
      return false;
    }
  }

  function save(blob, name) {
    const link = Dom.make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  const stem = (run) => run.picture.name.replace(/\.[^.]*$/, "") || "picture";

  /** The picture with its heat as it is seen, in the size it is kept here. */
  function overlay(panel) {
    const { run, id } = panel.view;
    const { base, width } = run.picture;
    const canvas = Dom.make("canvas", { width: base.width, height: base.height });
    const scale = base.width / width;
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    panel.paint(context, scale);
    canvas.toBlob((blob) => save(blob, `${stem(run)}-${id}-overlay.png`), "image/png");
  }

  /** The map's values as a file for numpy.load: a version 1.0 header, then little-endian float32, row by row. */
  function npy(evidence) {
    const { rows, columns, values } = evidence;
    const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
    const length = Math.ceil((10 + header.length + 1) / 64) * 64 - 10;
    const bytes = new Uint8Array(10 + length + 4 * values.length);
    bytes.set([0x93, ...[..."NUMPY"].map((letter) => letter.charCodeAt(0)), 1, 0, length % 256, length >> 8]);
    bytes.set([...`${header.padEnd(length - 1)}\n`].map((letter) => letter.charCodeAt(0)), 10);
    const view = new DataView(bytes.buffer, 10 + length);
    values.forEach((value, at) => view.setFloat32(4 * at, value, true));
    return new Blob([bytes], { type: "application/octet-stream" });
  }

  const grid = ({ run, id, evidence }) => save(npy(evidence), `${stem(run)}-${id}-grid.npy`);
  const json = (run) => save(new Blob([JSON.stringify(run.answer, null, 2)], { type: "application/json" }), `${stem(run)}.json`);

  return { curl, copy, overlay, grid, json };
})();
