// The label page: what the model is least sure of, one card each; a person says what it is.
// The token is kept for this tab and origin alone, and sent with every request: there is no cookie that could be ridden.
// Everything that comes from the device is put in as text or as attributes, never as markup.
"use strict";

const KEY = "edge-agent token";
const NUMBER_KEYS = 9;
const $ = (id) => document.getElementById(id);
const svg = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
let classes = [];

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "list") made.setAttribute(key, value); else made[key] = value;
  }
  made.append(...children);
  return made;
}

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) || ""}` };
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const item = await answer.json().catch(() => ({}));
  if (answer.status === 401) { logIn(Boolean(sessionStorage.getItem(KEY))); throw new Error("token"); }
  if (!answer.ok) throw new Error(item.error || `the device answered ${answer.status}`);
  return item;
}

function logIn(wasWrong) {
  $("inside").hidden = true;
  $("login").hidden = false;
  $("login-problem").textContent = wasWrong ? "That is not the token of this device." : "";
  $("token").focus();
}

function complain(error) {
  if (error.message === "token") return;
  $("problem").hidden = false;
  $("problem").textContent = error instanceof TypeError ? "The device does not answer. Is edge-agent running?" : error.message;
}

async function load() {
  $("problem").hidden = true;
  try {
    const status = await ask("/v1/status");
    const { asked } = await ask("/v1/uncertain?count=50");
    $("login").hidden = true;
    $("inside").hidden = false;
    showStatus(status);
    showSamples(asked, status);
  } catch (error) { complain(error); }
}

// What the device says of itself.

const percent = (share) => `${Math.round(100 * share)} %`;

function showStatus(status) {
  classes = status.classes;
  $("device").textContent = status.device || "edge-agent";
  $("model").textContent = [status.model, status.runtime, status.provider].filter(Boolean).join(" · ");
  document.title = `What are these? · ${status.device || "edge-agent"}`;
  const drift = status.drift;
  const rows = [
    ["Predictions", status.predictions.toLocaleString("en"), status.queue.dropped ? `${status.queue.dropped} dropped` : ""],
    ["Sees now", status.last ? status.last.label : "–", status.last ? `${percent(status.last.confidence)} sure` : "nothing yet"],
    ["Labels given", status.labels, "since the start"],
    ["Drift", !drift ? "not watched" : drift.is_drifted ? "yes" : drift.is_suspected ? "perhaps" : "no", drift ? driftWords(drift) : ""],
  ];
  $("facts").replaceChildren(...rows.map(([name, value, words]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }, element("small", { textContent: words })))));
  $("drift").hidden = !(drift && drift.is_drifted);
  $("drift").textContent = "Samples are not what they were. Labels on new ones help most now.";
  $("classes").replaceChildren(...classes.map((name) => element("option", { value: name })));
  showPersonal(status.personal);
}

function driftWords(drift) {
  if (!drift.inputs) return `${drift.window}`;
  return `${drift.inputs.distance.toFixed(2)} from the ${drift.reference}'s reference, alarm over ${drift.inputs.threshold.toFixed(2)}`;
}

function showPersonal(personal) {
  $("personal").hidden = !personal.corrects_by_class_prior;
  if (!personal.corrects_by_class_prior) return;
  $("personal-words").textContent =
    `Predictions here are corrected by how often this device meets each class, from ${personal.labelled_rows} labelled samples, ` +
    `at temperature ${personal.temperature}. Nothing of this is published. inference.local_prior = false turns it off.`;
  const shares = Object.entries(personal.class_prior).sort((a, b) => b[1] - a[1]).slice(0, 12);
  $("prior").replaceChildren(...shares.map(([name, share]) => element("li", {},
    element("span", { textContent: name }),
    element("meter", { min: 0, max: 1, value: share, "aria-label": `${name}: ${percent(share)}` }),
    element("span", { textContent: percent(share) }))));
}

// Samples.

function showSamples(asked, status) {
  const nothing = $("nothing");
  nothing.hidden = asked.length > 0;
  nothing.textContent = status.keeps_samples
    ? "The model is sure of everything it has seen so far. Come back later."
    : "This device keeps no samples, so there is nothing to label: its settings have no [store].";
  const named = classes.slice(0, NUMBER_KEYS);
  $("keys").hidden = asked.length === 0;
  $("keys").replaceChildren(
    ...(classes.length <= NUMBER_KEYS ? [element("kbd", { textContent: `1` }), "–", element("kbd", { textContent: `${named.length}` }), " choose a class, "] : ["Type the class and press Enter, "]),
    element("kbd", { textContent: "s" }), " can't tell, ", element("kbd", { textContent: "←" }), " ", element("kbd", { textContent: "→" }), " move.");
  $("samples").replaceChildren(...asked.map(card));
  countLeft();
}

function countLeft() {
  const cards = [...document.querySelectorAll(".card")];
  const left = cards.filter((one) => !one.classList.contains("done")).length;
  $("left").textContent = cards.length ? `${left} of ${cards.length} to go` : "";
}

function card(asked, place) {
  const guess = asked.guess === null ? "no guess" : asked.guess;
  const sure = asked.confidence === null ? "" : `, ${percent(asked.confidence)} sure`;
  const about = element("p", { className: "about" }, "Looks like ", element("b", { textContent: guess }), sure,
    element("br"), element("span", { className: "quiet small", textContent: when(asked.at_ms) }), element("span", { className: "verdict" }));
  const choices = element("div", { className: "choices" });
  const made = element("article", { className: "card", tabIndex: place === 0 ? 0 : -1,
    "aria-label": `Sample ${place + 1}, looks like ${guess}${sure}` }, picture(asked.picture, guess), about, choices);
  made.dataset.sample = asked.sample_id;
  if (classes.length <= NUMBER_KEYS) {
    choices.append(...classes.map((name, number) => {
      const button = element("button", { type: "button" }, element("small", { textContent: number + 1, "aria-hidden": "true" }), name);
      button.dataset.label = name;
      button.addEventListener("click", () => label(made, name));
      return button;
    }));
  } else {
    const typed = element("input", { "aria-label": "Class", placeholder: "class", autocomplete: "off", list: "classes" });
    typed.addEventListener("keydown", (event) => { if (event.key === "Enter") label(made, typed.value.trim()); });
    choices.append(typed);
  }
  const skip = element("button", { type: "button", className: "skip-it", textContent: "Can't tell" });
  skip.addEventListener("click", () => skipIt(made));
  choices.append(skip);
  return element("li", {}, made);
}

function when(atMs) {
  const seconds = Math.max(0, (Date.now() - atMs) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(atMs).toLocaleString();
}

function picture(drawn, guess) {
  const frame = element("div", { className: "picture" });
  if (!drawn) frame.append(element("span", { className: "quiet", textContent: "no longer kept" }));
  else if (drawn.kind === "image") frame.append(element("img", { src: `data:image/png;base64,${drawn.png}`, alt: `A sample that looks like ${guess}` }));
  else if (drawn.kind === "lines") frame.append(lines(drawn));
  else frame.append(element("span", { className: "tokens", textContent: drawn.tokens.join(" ") }));
  return frame;
}

function lines({ lines: curves, low, high }) {
  const canvas = svg("svg");
  canvas.setAttribute("viewBox", "0 0 100 75");
  canvas.setAttribute("preserveAspectRatio", "none");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${curves.length} channels from ${low.toPrecision(3)} to ${high.toPrecision(3)}`);
  curves.forEach((curve, number) => {
    const path = svg("path");
    path.setAttribute("class", `l${number % 8}`);
    let isDrawing = false;
    path.setAttribute("d", curve.map((point, place) => {
      if (point === null) { isDrawing = false; return ""; }
      const step = `${isDrawing ? "L" : "M"}${(4 + 92 * place / Math.max(1, curve.length - 1)).toFixed(2)} ${(70 - 65 * point).toFixed(2)}`;
      isDrawing = true;
      return step;
    }).join(" "));
    canvas.append(path);
  });
  return canvas;
}

// Answers.

async function label(made, name) {
  if (!classes.includes(name)) return;
  try {
    await ask("/v1/label", { sample_id: made.dataset.sample, label: name });
    for (const button of made.querySelectorAll("button[data-label]")) button.setAttribute("aria-pressed", String(button.dataset.label === name));
    settle(made, `✓ ${name}`);
  } catch (error) { complain(error); }
}

async function skipIt(made) {
  try {
    await ask("/v1/label", { sample_id: made.dataset.sample, skip: true });
    settle(made, "✓ skipped");
  } catch (error) { complain(error); }
}

function settle(made, verdict) {
  $("problem").hidden = true;
  made.querySelector(".verdict").textContent = verdict;
  made.classList.add("done");
  countLeft();
  const rest = [...document.querySelectorAll(".card:not(.done)")];
  const next = rest.find((one) => made.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING) || rest[0];
  if (next) go(next); else $("left").textContent += " – all done";
}

function go(made) {
  for (const one of document.querySelectorAll(".card")) one.tabIndex = one === made ? 0 : -1;
  made.focus();
  made.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, summary")) return;
  const cards = [...document.querySelectorAll(".card")];
  const made = document.activeElement && document.activeElement.closest(".card");
  const place = cards.indexOf(made);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (event.key in steps && cards.length) {
    event.preventDefault();
    go(cards[Math.min(cards.length - 1, Math.max(0, place + steps[event.key]))]);
  } else if (made && event.key === "s") {
    skipIt(made);
  } else if (made && /^[1-9]$/.test(event.key) && classes.length <= NUMBER_KEYS && classes[event.key - 1] !== undefined) {
    label(made, classes[event.key - 1]);
  }
});

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("token").value.trim());
  $("token").value = "";
  load();
});
$("reload").addEventListener("click", load);

// A link may bring the token behind #, which no browser sends to any server.
if (location.hash.length > 1) {
  sessionStorage.setItem(KEY, decodeURIComponent(location.hash.slice(1)));
  history.replaceState(null, "", location.pathname);
}
load();
