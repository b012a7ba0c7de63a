
"use strict";
const data = JSON.parse(document.getElementById("data-of-page").textContent).run;
const clips = [...document.querySelectorAll("#mistakes .clip")];
const chosen = document.getElementById("chosen"), others = document.getElementById("others");

function choose(cell) {
  const label = Number(cell.dataset.label), predicted = Number(cell.dataset.predicted);
  document.querySelectorAll(".matrix .chosen").forEach(other => other.classList.remove("chosen"));
  cell.classList.add("chosen");
  const shown = new Set();
  for (const clip of clips) {
    clip.hidden = Number(clip.dataset.label) !== label || Number(clip.dataset.predicted) !== predicted;
    if (!clip.hidden) shown.add(Number(clip.id.slice(1)));
  }
  document.querySelectorAll("#mistakes details").forEach(more => { more.open = true; });
  others.replaceChildren();
  data.videos.forEach(([name, trueLabel, guess, probability], number) => {
    if (trueLabel !== label || guess !== predicted || shown.has(number)) return;
    const item = document.createElement("li");
    item.textContent = name + " " + probability.toFixed(3);
    others.append(item);
  });
  others.hidden = !others.children.length;
  chosen.hidden = false;
  chosen.firstElementChild.textContent = data.names[label] + " predicted as " + data.names[predicted] + ": " +
    (shown.size + others.children.length) + " videos.";
  document.getElementById("mistakes").scrollIntoView();
}

for (const cell of document.querySelectorAll(".matrix g[role=button]")) {
  cell.addEventListener("click", () => choose(cell));
  cell.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(cell); } });
}
chosen.querySelector("button").addEventListener("click", () => {
  clips.forEach(clip => { clip.hidden = false; });
  chosen.hidden = others.hidden = true;
  document.querySelectorAll(".matrix .chosen").forEach(cell => cell.classList.remove("chosen"));
});

for (const table of document.querySelectorAll("table.sortable")) {
  const [head, ...rows] = table.rows;
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent;
    return text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  [...head.cells].forEach((cell, column) => cell.querySelector("button").addEventListener("click", () => {
    const up = cell.getAttribute("aria-sort") !== "ascending";
    [...head.cells].forEach(other => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows.sort((a, b) => {
      const one = value(a, column), other = value(b, column);
      const order = typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));
      return up ? order : -order;
    });
    rows[0].parentNode.append(...rows);
  }));
}
