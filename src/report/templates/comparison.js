"use strict";
// Prompts and tokens are words of strangers: everything becomes a text node or a mark's text, nothing is parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
// `ast` makes Vega interpret expressions instead of compiling them, so that the page needs no eval.
const options = {mode: "vega-lite", renderer: "svg", ast: true, actions: {export: true, source: false, compiled: false, editor: false}};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") made.style.setProperty(...value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// The rows of a slice of a cube: see Cube.records in src/report/cube.py
function records({cube: number, at = {}, fields}) {
  const cube = data.cubes[number];
  const strides = cube.dims.map((_, place) => cube.dims.slice(place + 1).reduce((size, [, values]) => size * values.length, 1));
  const arrays = Object.entries(fields).map(([field, name]) => [field, cube.values[name]]);
  let rows = [{row: {}, offset: 0}];
  cube.dims.forEach(([name, values], dimension) => {
    const places = name in at ? [at[name]] : values.keys();
    const columns = Object.entries(cube.about[name] ?? {});
    const steps = [...places].map((place) => [place * strides[dimension], Object.fromEntries([[name, values[place]], ...columns.map(([column, entries]) => [column, entries[place]])])]);
    rows = rows.flatMap(({row, offset}) => steps.map(([step, more]) => ({row: {...row, ...more}, offset: offset + step})));
  });
  for (const {row, offset} of rows) for (const [field, array] of arrays) row[field] = array[offset];
  return rows.map(({row}) => row);
}

const drawn = new Set();
async function draw(figure) {
  if (drawn.has(figure)) return;
  drawn.add(figure);
  const place = data.figures[Number(figure.dataset.figure)];
  const chart = document.createElement("div");
  try {
    const spec = {...data.specs[place.spec], config: data.config, data: {values: records(place)}};
    await vegaEmbed(chart, spec, options);
    const box = figure.querySelector(".drawing");
    box.replaceChildren(chart);
    const picture = chart.querySelector("svg");
    figure.style.setProperty("--natural", `${picture.getAttribute("width")}px`);
    figure.classList.add("drawn");
  } catch (error) {
    console.error(error);
  }
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((item) => item.isIntersecting)) {
    observer.unobserve(entry.target);
    draw(entry.target);
  }
}, {rootMargin: "600px"});
// a figure inside closed details is nowhere on the screen: it is drawn when they are opened
const figures = [...document.querySelectorAll("figure.pooled")];
figures.forEach((figure) => observer.observe(figure));
addEventListener("beforeprint", () => figures.filter((figure) => figure.checkVisibility()).forEach(draw));

const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥");
const bare = (text) => visible(text).trim() || "␣".repeat(Math.max(text.length, 1));
const percent = (share) => share < 5e-5 ? "< 0.01 %" : `${(100 * share).toFixed(share < 0.0995 ? 2 : 1)} %`;

function explore(box) {
  const steps = data.explorers[Number(box.dataset.explorer)];
  const slider = box.querySelector("input"), output = box.querySelector("output"), body = box.querySelector("tbody");
  const buttons = steps.map((step, place) => {
    const button = element("button", {type: "button", tabindex: "-1", title: `step ${place}: ${percent(step.p)}`, style: ["--sure", step.p.toFixed(3)]}, bare(data.strings[step.t]));
    button.addEventListener("click", () => { slider.value = place; show(); slider.focus(); });
    return button;
  });
  box.querySelector(".steps").append(...buttons);
  function show() {
    const place = Number(slider.value), step = steps[place];
    buttons.forEach((button, other) => button.setAttribute("aria-current", other === place ? "step" : "false"));
    output.textContent = `${place} of ${steps.length - 1}: ${JSON.stringify(visible(data.strings[step.t]))}, probability ${percent(step.p)}, entropy ${step.h.toFixed(3)} nats, effective vocabulary ${step.v.toFixed(1)}`;
    slider.setAttribute("aria-valuetext", output.textContent);
    const rows = step.k.map(([token, share], rank) => {
      const word = element("td", {class: "word", dir: "auto"}, bare(data.strings[token]));
      const row = element("tr", {}, element("td", {class: "number"}, String(rank + 1)), word, element("td", {class: "number share", style: ["--share", share.toFixed(4)]}, element("span", {}, percent(share))));
      if (token === step.t) row.className = "taken";
      return row;
    });
    body.replaceChildren(...(rows.length ? rows : [element("tr", {}, element("td", {colspan: "3"}, "no likeliest tokens were kept (capture.top_k_probs=0)"))]));
  }
  slider.addEventListener("input", show);
  show();
}
document.querySelectorAll(".explorer").forEach(explore);

document.querySelectorAll("button[data-fold]").forEach((button) => button.addEventListener("click", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = button.dataset.fold === "open"; });
}));

// a link to a run inside closed details opens them
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let outer = target.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
  const folded = target.querySelector(":scope > .fold");
  if (folded) folded.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
