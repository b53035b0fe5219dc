// The tab Inside: one patch at a time, marked in the image, in the view beside it and in the map, whichever it is found in;
// and clusters shown alone. Runs once per component (gr.HTML js_on_load) with `element`, `trigger` and `watch`; listeners
// sit on the element, whose contents Gradio replaces, or changes in place, with every answer.
let pinned = null;   // a patch that stays marked, while layers and views change: {index, photo, grid}
let alone = null;    // the cluster that is shown alone
let drawn = null;    // what is parsed of the contents

function contents() {
  if (drawn) return drawn;
  const root = element.querySelector(".tips-inside");
  if (!root) return null;
  const [rows, columns] = root.dataset.grid.split("x").map(Number);
  const plane = root.querySelector(".plane");
  const plan = plane ? JSON.parse(plane.dataset.plan) : null;
  const { kind, grid } = root.dataset, told = JSON.parse(root.dataset.told), photo = root.style.getPropertyValue("--photo");
  return (drawn = { root, kind, grid, photo, rows, columns, told, plane, plan });
}

// ---- one patch, everywhere

function mark(index, lead = "") {
  const at = contents();
  if (!at) return;
  const row = Math.floor(index / at.columns), column = index % at.columns;
  for (const spot of at.root.querySelectorAll(".spot")) {
    spot.style.cssText = index === null ? "" : `display:block;left:${(100 * column) / at.columns}%;` +
      `top:${(100 * row) / at.rows}%;width:${100 / at.columns}%;height:${100 / at.rows}%`;
  }
  at.root.toggleAttribute("data-kept", index !== null && pinned !== null && pinned.index === index);
  const line = at.root.querySelector(".told");
  if (index === null) {
    line.textContent = "Point at a patch, or press Tab and use the arrow keys; a click keeps it.";
  } else {
    const facts = at.told.map((each) => {
      const value = each.values[index];
      return `${each.name} ${each.names ? each.names[value] : value.toFixed(each.digits)}`;
    });
    line.textContent = [`${lead}Row ${row + 1}, column ${column + 1}`, ...facts].join(" · ");
  }
  if (at.plane) plot(at, index);
  if (at.kind === "clusters") {
    const own = index === null ? null : String(at.told[0].values[index]);
    for (const button of at.root.querySelectorAll("[data-cluster]")) button.classList.toggle("on", button.dataset.cluster === own);
  }
}

const rest = () => mark(pinned ? pinned.index : null);

function keep(index) {
  const at = contents();
  pinned = pinned && pinned.index === index ? null : { index, photo: at.photo, grid: at.grid };
  if (at.kind === "clusters") isolate(pinned ? String(at.told[0].values[index]) : null);
  mark(index);
}

// ---- clusters

function isolate(key) {
  const at = contents();
  alone = key;
  for (const button of at.root.querySelectorAll("[data-cluster]")) {
    button.setAttribute("aria-pressed", String(button.dataset.cluster === key));
  }
  veil(key);
}

function veil(key) {
  const at = contents();
  const labels = at.told[0].values;
  for (const canvas of at.root.querySelectorAll("canvas")) {
    canvas.width = at.columns;
    canvas.height = at.rows;
    if (key === null) continue;  // giving it a size has cleared it
    const context = canvas.getContext("2d");
    context.fillStyle = "rgba(11, 15, 20, .8)";
    labels.forEach((label, index) => {
      if (String(label) !== key) context.fillRect(index % at.columns, Math.floor(index / at.columns), 1, 1);
    });
  }
}

// ---- the map

const MARGIN = 26;  // pixels around the points, where labels find room

function placeOf(at, index, box) {
  return [
    MARGIN + at.plan.points[2 * index] * (box.width - 2 * MARGIN),
    MARGIN + at.plan.points[2 * index + 1] * (box.height - 2 * MARGIN),
  ];
}

function plot(at, chosen) {
  const box = { width: at.plane.clientWidth, height: at.plane.clientHeight };
  if (!box.width) return;
  const canvas = at.plane.querySelector("canvas"), scale = window.devicePixelRatio || 1;
  canvas.width = box.width * scale;
  canvas.height = box.height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const count = at.plan.colors.length, dark = document.body.classList.contains("dark");
  const radius = Math.min(5.5, Math.max(1.6, 0.16 * Math.sqrt((box.width * box.height) / count)));
  context.lineWidth = 0.8;
  context.strokeStyle = dark ? "rgba(255, 255, 255, .35)" : "rgba(0, 0, 0, .35)";
  const disc = (index, size) => {
    const [x, y] = placeOf(at, index, box);
    context.beginPath();
    context.arc(x, y, size, 0, 2 * Math.PI);
  };
  for (let index = 0; index < count; index++) {
    context.fillStyle = `#${at.plan.colors[index]}`;
    disc(index, radius);
    context.fill();
    context.stroke();
  }
  if (chosen === null) return;
  context.fillStyle = `#${at.plan.colors[chosen]}`;
  disc(chosen, radius + 3.5);
  context.fill();
  for (const [color, width] of [["#fff", 5], ["#111", 2]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke();
  }
}

// Each label at the first place near its mark where it stays inside and covers neither a mark nor another label.
function label(at) {
  const box = { width: at.plane.clientWidth, height: at.plane.clientHeight };
  if (!box.width) return;
  const words = [...at.plane.querySelectorAll(".word")].map((word) => ({
    word,
    x: MARGIN + Number(word.dataset.x) * (box.width - 2 * MARGIN),
    y: MARGIN + Number(word.dataset.y) * (box.height - 2 * MARGIN),
  }));
  const taken = words.map(({ x, y }) => [x - 8, y - 8, x + 8, y + 8]);
  for (const { word, x, y } of words) {
    word.style.left = `${x}px`;
    word.style.top = `${y}px`;
    const text = word.querySelector("span"), width = text.offsetWidth, height = text.offsetHeight;
    const inside = (left) => Math.min(Math.max(left, 2), Math.max(2, box.width - width - 2));
    const sides = [];
    for (let step = 0; step < 6; step++) {
      const away = 10 + step * (height + 2);
      sides.push([inside(x - width / 2), y - away - height], [inside(x - width / 2), y + away]);
      if (step === 0) sides.push([x + 11, y - height / 2], [x - 11 - width, y - height / 2]);
    }
    const free = ([left, top]) => left >= 0 && top >= 0 && left + width <= box.width && top + height <= box.height &&
      !taken.some((other) => left < other[2] && left + width > other[0] && top < other[3] && top + height > other[1]);
    const [left, top] = sides.find(free) ?? sides[0];
    taken.push([left, top, left + width, top + height]);
    text.style.left = `${left - x}px`;
    text.style.top = `${top - y}px`;
  }
}

function nearestPoint(at, x, y, reach) {
  const box = { width: at.plane.clientWidth, height: at.plane.clientHeight };
  let best = null, least = reach * reach;
  for (let index = 0; index < at.plan.colors.length; index++) {
    const [left, top] = placeOf(at, index, box);
    const away = (left - x) ** 2 + (top - y) ** 2;
    if (away < least) [best, least] = [index, away];
  }
  return best;
}

// ---- pointer and keys

function found(event) {
  const at = contents(), stage = event.target.closest(".stage");
  if (!at || !stage) return null;
  const box = stage.getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  if (stage === at.plane) return nearestPoint(at, x, y, 24);
  const inside = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
  return inside(y / box.height, at.rows) * at.columns + inside(x / box.width, at.columns);
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// In the image to the neighbouring patch; in the map to the closest point that lies in that direction.
function step(at, from, [dx, dy], stage) {
  if (stage !== at.plane) {
    const row = Math.floor(from / at.columns) + dy, column = (from % at.columns) + dx;
    return row < 0 || row >= at.rows || column < 0 || column >= at.columns ? from : row * at.columns + column;
  }
  const box = { width: at.plane.clientWidth, height: at.plane.clientHeight };
  const [x, y] = placeOf(at, from, box);
  let best = from, least = Infinity;
  for (let index = 0; index < at.plan.colors.length; index++) {
    const [left, top] = placeOf(at, index, box);
    const ahead = (left - x) * dx + (top - y) * dy, aside = Math.abs((left - x) * dy + (top - y) * dx);
    if (ahead > 0.5 && ahead >= aside && ahead + aside < least) [best, least] = [index, ahead + aside];
  }
  return best;
}

let current = null;  // the patch last pointed at, where the arrow keys start

function word(event) {
  const button = event.target.closest(".word");
  if (!button) return false;
  current = Number(button.dataset.patch);
  mark(current, `${button.textContent} → `);
  return true;
}

element.addEventListener("pointermove", (event) => {
  if (word(event)) return;
  const button = event.target.closest("[data-cluster]");
  if (button) return veil(button.dataset.cluster);
  if (contents()?.kind === "clusters") veil(alone);
  const index = found(event);
  if (index === null) return rest();
  mark((current = index));
});
element.addEventListener("pointerleave", () => {
  if (contents()?.kind === "clusters") veil(alone);
  rest();
});
element.addEventListener("focusin", word);
element.addEventListener("click", (event) => {
  if (event.target.closest(".ask")) return trigger("submit");
  const button = event.target.closest("[data-cluster]");
  if (button) return isolate(alone === button.dataset.cluster ? null : button.dataset.cluster);
  const chosen = event.target.closest(".word");
  const index = chosen ? Number(chosen.dataset.patch) : found(event);
  if (index !== null) keep(index);
});
element.addEventListener("keydown", (event) => {
  const at = contents();
  if (!at || !event.target.matches(".stage")) return;
  if (STEPS[event.key]) {
    current = current === null ? 0 : step(at, current, STEPS[event.key], event.target);
    mark(current);
  } else if ((event.key === "Enter" || event.key === " ") && current !== null) keep(current);
  else if (event.key === "Escape") {
    pinned = null;
    if (at.kind === "clusters") isolate(null);
    rest();
  } else return;
  event.preventDefault();
});

// ---- new contents, another size

function fresh() {
  drawn = null;
  const at = contents();
  if (!at) return;
  if (pinned && (pinned.grid !== at.grid || pinned.photo !== at.photo)) pinned = null;
  if (current !== null && current >= at.rows * at.columns) current = null;
  alone = null;
  if (at.kind === "clusters") isolate(null);
  if (at.plane) label(at);
  rest();
}

watch("value", fresh);
new ResizeObserver(() => {
  const at = contents();
  if (at?.plane) {
    label(at);
    rest();
  }
}).observe(element);
fresh();
