"use strict";
// A figure is a picture until it comes near the screen; then the interactive chart takes its place.
// `ast` makes Vega interpret expressions instead of compiling them, so that the page needs no eval.
const options = {
  mode: "vega-lite",
  renderer: "svg",
  ast: true,
  actions: {export: true, source: false, compiled: false, editor: false},
};

async function draw(figure) {
  const spec = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const chart = document.createElement("div");
  try {
    await vegaEmbed(chart, spec, options);
    figure.querySelector(".drawing").replaceChildren(chart);
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
document.querySelectorAll("figure.chart").forEach((figure) => observer.observe(figure));
