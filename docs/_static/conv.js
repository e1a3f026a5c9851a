/* The pixel explorer of the chapter on convolution: choose a pixel of x, and see which windows it lies in and the terms of its dx.
   Without scripts the page shows a figure in its place. */
(function () {
  "use strict";
  const SIZE = 5, KERNEL = 3;
  const place = document.getElementById("conv-explorer");
  const state = { h: 2, k: 2, stride: 1, same: true };

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // Windows (i, j) that cover pixel (h, k), and the place (u, v) at which they meet it: the geometry of `_meetings`.
  function meetings() {
    const padding = state.same ? Math.max((Math.ceil(SIZE / state.stride) - 1) * state.stride + KERNEL - SIZE, 0) : 0;
    const before = Math.floor(padding / 2);
    const out = state.same ? Math.ceil(SIZE / state.stride) : Math.ceil((SIZE - KERNEL + 1) / state.stride);
    const found = [];
    for (let i = 0; i < out; i++)
      for (let j = 0; j < out; j++) {
        const u = state.h - i * state.stride + before, v = state.k - j * state.stride + before;
        if (u >= 0 && u < KERNEL && v >= 0 && v < KERNEL) found.push({ i, j, u, v });
      }
    return { out, found };
  }

  function grid(size, name, make) {
    const table = element("div", { class: "explorer-grid", style: `--size: ${size}`, role: "group", "aria-label": name });
    for (let row = 0; row < size; row++) for (let column = 0; column < size; column++) table.append(make(row, column));
    return element("div", {}, element("div", { class: "explorer-title" }, name), table);
  }

  function draw(focus) {
    const { out, found } = meetings();
    const x = grid(SIZE, "x: choose a pixel", (h, k) => {
      const chosen = h === state.h && k === state.k;
      const pixel = element("button", { type: "button", "aria-pressed": chosen, "aria-label": `pixel ${h}, ${k}` }, `${h},${k}`);
      pixel.addEventListener("click", () => { state.h = h; state.k = k; draw(true); });
      return pixel;
    });
    const y = grid(out, "dy: the windows that it lies in", (i, j) => {
      const meeting = found.find((window) => window.i === i && window.j === j);
      return element("span", { class: meeting ? "met" : "" }, meeting ? `w[${meeting.u},${meeting.v}]` : "");
    });
    const terms = found.map(({ i, j, u, v }) => `w[${u},${v}]·dy[${i},${j}]`);
    const sum = element("p", { class: "explorer-sum", "aria-live": "polite" },
      element("strong", {}, `dx[${state.h},${state.k}] = `), terms.length ? terms.join(" + ") : "0: no window reaches it",
      element("span", { class: "explorer-count" }, ` (${terms.length} term${terms.length === 1 ? "" : "s"})`));
    const choices = element("div", { class: "explorer-choices" });
    for (const [label, same, stride] of [["same, stride 1", true, 1], ["same, stride 2", true, 2], ["valid, stride 1", false, 1], ["valid, stride 2", false, 2]]) {
      const button = element("button", { type: "button", "aria-pressed": state.same === same && state.stride === stride }, label);
      button.addEventListener("click", () => { state.same = same; state.stride = stride; draw(); });
      choices.append(button);
    }
    place.replaceChildren(choices, element("div", { class: "explorer-grids" }, x, y), sum);
    if (focus) place.querySelector('.explorer-grid button[aria-pressed="true"]').focus();
  }

  place.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !event.target.closest(".explorer-grid")) return;
    event.preventDefault();
    event.stopPropagation(); // the theme turns pages with the same keys
    state.h = Math.min(Math.max(state.h + step[0], 0), SIZE - 1);
    state.k = Math.min(Math.max(state.k + step[1], 0), SIZE - 1);
    draw(true);
  });
  draw();
})();
