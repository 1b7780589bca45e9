// Keeps a page current: on each event of the server the page fetches itself and puts the new <main> in place of the old.
// Without this script everything works; one reloads.
"use strict";

const skewMs = Date.now() - Number(document.body.dataset.now);
const told = document.querySelector("[data-live]");

function span(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const words = [];
  let left = Math.round(Math.abs(seconds));
  for (const [size, unit] of units) {
    const whole = Math.floor(left / size);
    left %= size;
    if (whole || (size === 1 && !words.length)) words.push(`${whole}\u00a0${unit}`);
    else if (words.length) break;
  }
  return words.slice(0, 2).join(" ");
}

function tick() {
  const nowMs = Date.now() - skewMs;
  for (const clock of document.querySelectorAll("[data-until]")) {
    const leftMs = Number(clock.dataset.until) - nowMs;
    clock.textContent = leftMs > 0 ? span(leftMs / 1000) : "over";
  }
  for (const clock of document.querySelectorAll("[data-since]")) {
    const sinceMs = nowMs - Number(clock.dataset.since);
    clock.textContent = sinceMs >= 1000 ? `${span(sinceMs / 1000)} ago` : "now";
  }
}

function isBusy() {
  const active = document.activeElement;
  return active instanceof HTMLElement && active.closest("main form") !== null;
}

// What a reader has opened, focused or scrolled stays so.
function replace(fresh) {
  const main = document.querySelector("main");
  const open = [...main.querySelectorAll("details[open][id]")].map((details) => details.id);
  const focused = main.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = [...main.querySelectorAll(".scroll, .picture")].map((box) => [box.scrollLeft, box.scrollTop]);
  main.replaceWith(fresh);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  fresh.querySelectorAll(".scroll, .picture").forEach((box, index) => {
    if (scrolled[index]) [box.scrollLeft, box.scrollTop] = scrolled[index];
  });
  tick();
}

let isStale = false;
let isFetching = false;

async function refresh() {
  if (isFetching || document.hidden || isBusy()) {
    isStale = true;
    return;
  }
  isStale = false;
  isFetching = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = page.querySelector("main");
    if (answer.redirected || !main) location.reload();
    else replace(document.adoptNode(main));
  } catch {
    told.textContent = "connection lost";
    told.dataset.live = "off";
  } finally {
    isFetching = false;
  }
}

if (told) {
  const stream = new EventSource("/events");
  let isFirst = true;
  stream.addEventListener("open", () => {
    told.textContent = "live";
    told.dataset.live = "on";
    if (!isFirst) refresh();
    isFirst = false;
  });
  stream.addEventListener("error", () => {
    told.textContent = "connection lost";
    told.dataset.live = "off";
  });
  stream.addEventListener("changed", refresh);
  addEventListener("pagehide", () => stream.close());
  document.addEventListener("visibilitychange", () => isStale && refresh());
  document.addEventListener("focusout", () => setTimeout(() => isStale && refresh(), 0));
}

tick();
setInterval(tick, 1000);
