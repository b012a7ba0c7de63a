
"use strict";
const data = JSON.parse(document.getElementById("data-of-page").textContent);
const cards = [...document.querySelectorAll(".clip")], answers = new Map();
const keys = "1234567890abcdefghijklmnopqrstuvwxyz"; // further classes have no key, and are clicked
let current = 0, isSaved = true;

function show(number, focuses) {
  current = Math.max(0, Math.min(cards.length - 1, number));
  cards.forEach((card, position) => card.classList.toggle("current", position === current));
  if (focuses) { cards[current].focus(); cards[current].scrollIntoView({block: "center"}); }
}

function answer(number, label) {
  if (label === null) answers.delete(number); else answers.set(number, label);
  isSaved = answers.size === 0;
  [...cards[number].querySelectorAll("button")].forEach((button, position) =>
    button.setAttribute("aria-pressed", String(position === label)));
  document.getElementById("count").textContent = answers.size + " of " + cards.length + " have a label";
}

cards.forEach((card, number) => {
  data.names.forEach((name, label) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = (label < keys.length ? keys[label] + "  " : "") + name;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => { show(number, false); answer(number, label); });
    card.querySelector(".answers").append(button);
  });
  card.addEventListener("focus", () => show(number, false));
});

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const label = keys.indexOf(event.key.toLowerCase());
  if (event.key === "ArrowRight") show(current + 1, true);
  else if (event.key === "ArrowLeft") show(current - 1, true);
  else if (event.key === "Delete" || event.key === "Backspace") answer(current, null);
  else if (label >= 0 && label < data.names.length) { answer(current, label); show(current + 1, true); }
  else return;
  event.preventDefault();
});

function table() {
  const quote = value => value === null ? "" : '"' + String(value).replaceAll('"', '""') + '"';
  const hasTimes = data.rows.some(row => row.start_s !== null);
  const header = hasTimes ? ["path", "start_s", "end_s", "label"] : ["path", "label"];
  const rows = [...answers.keys()].sort((a, b) => a - b).map(number =>
    header.map(name => quote(name === "label" ? data.names[answers.get(number)] : data.rows[number][name])).join(","));
  return [header.join(","), ...rows].join("\n") + "\n";
}

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], {type: "text/csv"}));
  link.download = "labels.csv";
  link.click();
  URL.revokeObjectURL(link.href);
  isSaved = true;
});
window.addEventListener("beforeunload", event => { if (!isSaved) event.preventDefault(); });
show(0, false);
