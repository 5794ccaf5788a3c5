"use strict";
// Works on what the page holds; without it everything is still shown.
const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0];
  const column = [...head.parentNode.children].indexOf(head);
  const falling = head.getAttribute("aria-sort") === "ascending";
  const sign = falling ? -1 : 1;
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const rows = [...body.rows].map((row) => [row, value(row)]);
  // What was not measured stays last in either order.
  const missing = (text) => text === "" || text === "–";
  rows.sort(([, a], [, b]) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const numbers = [Number(a), Number(b)];
    return sign * (numbers.some(Number.isNaN) ? words.compare(a, b) : numbers[0] - numbers[1]);
  });
  body.append(...rows.map(([row]) => row));
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
}

for (const head of document.querySelectorAll("table[data-sortable] thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sortBy(head));
}

// Items of a list that are shown before somebody asks for more.
const FIRST = 15, MORE = 60;

function filterItems(form, most) {
  const items = document.getElementById(form.dataset.filters).querySelectorAll("[data-item]");
  const wanted = [...form.querySelectorAll("select")].map((one) => [one.name, one.value]);
  const sought = form.querySelector("input").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const item of items) {
    // Texts of records and models only: names of models and measures are in every item.
    item.sought ??= [...item.querySelectorAll("bdi")].map((one) => one.textContent.toLowerCase()).join("\n");
    const fits = wanted.every(([name, value]) => value === "" || item.dataset[name] === value)
      && sought.every((word) => item.sought.includes(word));
    found += fits;
    item.hidden = !fits || found > most;
  }
  form.querySelector("output").textContent = `${Math.min(found, most)} of ${found} shown`;
  const more = form.nextMore;
  more.hidden = found <= most;
  more.onclick = () => filterItems(form, most + MORE);
}

for (const form of document.querySelectorAll("[data-filters]")) {
  form.hidden = false;
  form.nextMore = document.createElement("button");
  form.nextMore.type = "button";
  form.nextMore.textContent = "show more";
  document.getElementById(form.dataset.filters).after(form.nextMore);
  form.addEventListener("input", () => filterItems(form, FIRST));
  filterItems(form, FIRST);
}

function shade(place) {
  const text = place.textContent, ends = place.dataset.ends.split(" ").map(Number);
  const spans = [];
  let start = 0;
  ends.forEach((end, n) => {
    if (end <= start) return;
    const span = document.createElement("span"), digit = place.dataset.shades[n] ?? "-";
    span.textContent = text.slice(start, end);
    if (digit !== "-") {
      span.className = `s${digit}`;
      span.title = `probability ${digit}0 to ${Number(digit) + 1}0 %`;
    }
    spans.push(span);
    start = end;
  });
  place.replaceChildren(...spans, text.slice(start));
  place.removeAttribute("data-shades");
}

function shadeAll(item) {
  item.querySelectorAll("[data-shades]").forEach(shade);
}

for (const item of document.querySelectorAll("details")) {
  if (item.open) shadeAll(item);
  item.addEventListener("toggle", () => item.open && shadeAll(item));
}

// What is folded is printed too.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open]):not([hidden])")];
  folded.forEach((item) => { item.open = true; });
});
addEventListener("afterprint", () => folded.forEach((item) => { item.open = false; }));
