"use strict";
// Tokens are words of strangers: everything becomes a text node, nothing is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("cards");
const cards = new Map(data.cards.map((card, order) => [card.id, {...card, order}]));
const articles = new Map(data.cards.map((card) => [card.id, document.getElementById(`feature-${card.id}`)]));

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") made.style.setProperty(...value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥");
const bare = (text) => visible(text).trim() || "␣".repeat(Math.max(text.length, 1));
const short = (value) => value === 0 ? "0" : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(1) : Number(value.toPrecision(3)).toLocaleString("en", {maximumFractionDigits: 4});
const percent = (share) => share >= 0.0995 ? `${Math.round(share * 100)}\u00a0%` : `${Number((share * 100).toPrecision(2))}\u00a0%`;

function histogram(card) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  const most = Math.log1p(Math.max(...card.bins));
  drawing.setAttribute("class", "histogram");
  drawing.setAttribute("viewBox", `0 0 ${card.bins.length} 100`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `Histogram of activations from 0 to ${short(card.max)}`);
  const width = card.upper / card.n_bins;
  card.bins.forEach((count, place) => {
    if (!count) return;
    const bar = document.createElementNS(space, "rect");
    const height = Math.max(100 * Math.log1p(count) / most, 3);
    for (const [name, value] of Object.entries({x: place + 0.06, y: 100 - height, width: 0.88, height})) bar.setAttribute(name, value);
    const label = document.createElementNS(space, "title");
    label.textContent = `${short(place * width)} to ${short((place + 1) * width)}: ${count.toLocaleString("en")} tokens`;
    bar.append(label);
    drawing.append(bar);
  });
  const axis = element("div", {class: "axis"}, element("span", {}, "0"), element("span", {}, short(card.bins.length * width)));
  return [drawing, axis];
}

function line(card, context) {
  const strength = new Map();
  for (let i = 0; i < context.a.length; i += 2) strength.set(context.a[i], context.a[i + 1]);
  const hidden = new Set(context.x);
  const left = element("span"), right = element("span", {class: "right"});
  context.t.forEach((token, place) => {
    const text = visible(data.strings[token]);
    const value = strength.get(place);
    let piece = text;
    if (value !== undefined) {
      // the square root keeps weak firings visible
      const colour = Math.max(Math.sqrt(value / card.max), 0.12);
      piece = element("i", {style: ["--a", colour.toFixed(3)], title: `${short(value)} on ${JSON.stringify(data.strings[token])}`}, text);
      if (place === context.at) piece.className = "peak";
    } else if (hidden.has(place)) {
      piece = element("s", {title: "not counted"}, text);
    }
    (place < context.at ? left : right).append(piece);
  });
  const text = element("div", {class: "text"}, element("div", {class: "left"}, left), right);
  const value = element("span", {class: "value", title: `document ${context.d}, position ${context.p}`}, short(strength.get(context.at)));
  return element("div", {class: "line"}, value, text);
}

function contexts(card) {
  const found = [];
  const top = card.contexts.filter((context) => context.b === null);
  if (top.length) {
    found.push(element("h3", {}, "Strongest contexts, one for each document"));
    found.push(element("div", {class: "contexts"}, ...top.map((context) => line(card, context))));
  }
  const bands = [...new Set(card.contexts.map((context) => context.b).filter((band) => band !== null))];
  const count = Math.max(...bands, 0) + 1;
  if (bands.length) {
    const parts = bands.flatMap((band) => [
      element("h3", {}, `Firings from ${Math.round(100 * band / count)} to ${Math.round(100 * (band + 1) / count)} % of the ranking, weakest = 0 %`),
      element("div", {class: "contexts"}, ...card.contexts.filter((context) => context.b === band).map((context) => line(card, context))),
    ]);
    found.push(element("details", {class: "bands"}, element("summary", {}, `Contexts of every strength, drawn at random (${card.contexts.length - top.length})`), ...parts));
  }
  return found;
}

function words(side, entries) {
  return element("ul", {class: `words ${side}`}, ...entries.map(([token, effect]) =>
    element("li", {title: `${effect > 0 ? "+" : ""}${short(effect)} on ${JSON.stringify(data.strings[token])}`}, bare(data.strings[token]))));
}

function side(card) {
  const parts = [];
  if (card.n !== undefined) {
    const strong = (text) => element("b", {}, text);
    const facts = element("p", {class: "facts"}, "fires on ", strong(percent(card.n / card.of)), ` of tokens (${card.n.toLocaleString("en")}), in `,
      strong(percent(card.seqs / card.of_seqs)), " of sequences; maximum ", strong(short(card.max)), ", mean ", strong(short(card.mean)));
    parts.push(element("section", {}, element("h3", {}, "Activation (counts on a log scale)"), facts, ...(card.n ? histogram(card) : [])));
  }
  if (card.tokens?.length) {
    const rows = card.tokens.map(([token, share, rate, count]) => element("li", {style: ["--share", share], title: `${count.toLocaleString("en")} firings on ${JSON.stringify(data.strings[token])}`},
      element("span", {class: "word"}, bare(data.strings[token])), element("span", {class: "number"}, percent(share)), element("span", {class: "number"}, `fires ${percent(rate)}`)));
    parts.push(element("section", {}, element("h3", {title: "share of the sum of activations; on which share of its occurrences the feature fires"}, "Tokens, by share of activation"), element("ul", {class: "tally"}, ...rows)));
  }
  if (card.scores) {
    const entries = Object.entries(card.scores).map(([name, value]) => element("span", {}, `${name.replaceAll("_", " ")} `, element("b", {}, short(value))));
    parts.push(element("section", {}, element("h3", {}, "Scores"), element("p", {class: "scores"}, ...entries)));
  }
  if (card.near?.length) {
    const entries = card.near.map(([id, cosine]) => element("span", {}, cards.has(id) ? element("a", {href: `#feature-${id}`}, String(id)) : String(id), ` ${cosine.toFixed(2)}`));
    parts.push(element("section", {}, element("h3", {}, "Nearest decoder directions (cosine)"), element("p", {class: "near"}, ...entries)));
  }
  return element("div", {class: "side"}, ...parts);
}

function draw(id) {
  const card = cards.get(id), article = articles.get(id);
  if (!card || article.classList.contains("drawn")) return;
  (card.said ?? []).forEach(([text, source, method], place) => {
    const by = [source, method].filter(Boolean).join(", ");
    article.append(element("p", {class: "said"}, ...(place ? [element("b", {}, text), " — "] : []), by));
  });
  const main = element("div", {class: "main"});
  if (card.up) {
    main.append(element("div", {class: "effects"},
      element("div", {}, element("h3", {}, "Promotes"), words("up", card.up)), element("div", {}, element("h3", {}, "Suppresses"), words("down", card.down))));
  }
  if (card.contexts) main.append(...contexts(card));
  article.append(element("div", {class: "body"}, side(card), main));
  article.classList.add("drawn");
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((item) => item.isIntersecting)) {
    observer.unobserve(entry.target);
    draw(Number(entry.target.id.slice("feature-".length)));
  }
}, {rootMargin: "1200px"});
articles.forEach((article) => observer.observe(article));

// what the search looks at, made once for each card when first needed
const texts = new Map();
function textOf(card) {
  if (!texts.has(card.id)) {
    const tokens = [...(card.tokens ?? []), ...(card.up ?? []), ...(card.down ?? [])].map(([token]) => data.strings[token]);
    const windows = (card.contexts ?? []).map((context) => context.t.map((token) => data.strings[token]).join(""));
    texts.set(card.id, [...(card.said ?? []).map(([text]) => text), ...tokens, ...windows].join("\n").toLowerCase());
  }
  return texts.get(card.id);
}

function numberOf(card, name) {
  if (name === "id") return card.id;
  if (name === "rate") return card.n === undefined ? undefined : card.n / card.of;
  if (name === "max") return card.max;
  return card.scores?.[name];
}

function fits(card, terms) {
  return terms.every((term) => {
    const limit = term.match(/^([a-z_]+)(>=|<=|>|<|=)(-?[\d.e-]+)$/);
    if (limit) {
      const value = numberOf(card, limit[1]), bound = Number(limit[3]);
      if (value === undefined || Number.isNaN(bound)) return false;
      return {">": value > bound, "<": value < bound, ">=": value >= bound, "<=": value <= bound, "=": value === bound}[limit[2]];
    }
    return String(card.id) === term.replace(/^#/, "") || textOf(card).includes(term);
  });
}

const search = document.getElementById("search"), sort = document.getElementById("sort"), wrap = document.getElementById("wrap");
const count = document.getElementById("count"), nothing = document.getElementById("nothing");

function arrange() {
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const name = sort.value.replace(/^score:/, "");
  const key = (card) => name === "given" ? card.order : name === "id" ? card.id : -(numberOf(card, name) ?? -Infinity);
  const ordered = [...cards.values()].sort((one, other) => key(one) - key(other) || one.order - other.order);
  let shown = 0;
  for (const card of ordered) {
    const article = articles.get(card.id);
    article.hidden = !fits(card, terms);
    shown += article.hidden ? 0 : 1;
  }
  list.append(...ordered.map((card) => articles.get(card.id)), nothing);
  nothing.hidden = shown > 0 || cards.size === 0;
  count.textContent = shown === cards.size ? `${shown.toLocaleString("en")} features` : `${shown.toLocaleString("en")} of ${cards.size.toLocaleString("en")}`;
}

function go() {
  const match = location.hash.match(/^#feature-(\d+)$/);
  const article = match && articles.get(Number(match[1]));
  if (!article) {
    if (match) count.textContent = `feature ${match[1]} has no card on this page; ${cards.size.toLocaleString("en")} features have`;
    return;
  }
  if (article.hidden) {
    search.value = "";
    arrange();
  }
  draw(Number(match[1]));
  article.focus({preventScroll: true});
  article.scrollIntoView({block: "start"});
}

function step(direction) {
  const shown = [...list.querySelectorAll(".card:not([hidden])")];
  const edge = document.querySelector(".top").getBoundingClientRect().bottom;
  const here = shown.findIndex((article) => article.getBoundingClientRect().top >= edge - 4);
  const from = document.activeElement?.closest?.(".card");
  const place = from && shown.includes(from) ? shown.indexOf(from) + direction : Math.max(here, 0) + (direction < 0 ? -1 : 0);
  const next = shown[Math.min(Math.max(place, 0), shown.length - 1)];
  if (!next) return;
  draw(Number(next.id.slice("feature-".length)));
  next.focus({preventScroll: true});
  next.scrollIntoView({block: "start"});
}

let waiting;
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(arrange, 120); });
sort.addEventListener("change", arrange);
wrap.addEventListener("change", () => document.body.classList.toggle("whole", wrap.checked));
document.querySelector("form").addEventListener("submit", (event) => { event.preventDefault(); arrange(); });
addEventListener("hashchange", go);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "Escape" && event.target === search) { search.value = ""; arrange(); search.blur(); }
  if (typing) return;
  if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); }
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
  if (event.key === "w") { wrap.checked = !wrap.checked; document.body.classList.toggle("whole", wrap.checked); }
});
// paper has no scrolling
addEventListener("beforeprint", () => cards.forEach((_, id) => draw(id)));
arrange();
data.cards.slice(0, 4).forEach((card) => draw(card.id));
go();
