// The Depth tab: metres, direction and class under the pointer, in both pictures at once, on the colour bar and on the
// balls; a click keeps a place, arrow keys move it. And the button that asks for the heads.
// Runs once per component (gr.HTML js_on_load) with `element`, `trigger` and `watch`; listeners sit on the element, whose
// contents Gradio replaces with every answer.
let read = null; // what is unpacked of the contents
let kept = null; // {row, column} that stays marked, in a grid of kept.grid

const REST = "Point at a picture to read it; a click keeps the place.";

function unpacked(text, Kind) {
  return text === undefined ? null : new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function contents() {
  const root = element.querySelector(".tips-depth");
  if (!root) return null;
  if (read) return read;
  const { grid, depth, normals, labels, names, range } = root.dataset;
  const [rows, columns] = grid.split("x").map(Number);
  return (read = {
    root, grid, rows, columns,
    depth: unpacked(depth, Float32Array), normals: unpacked(normals, Int8Array), labels: unpacked(labels, Int16Array),
    names: names ? names.split("\n") : [], range: range ? range.split(" ").map(Number) : null,
  });
}

function signed(value) {
  return `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)}`;
}

function mark(place) {
  const at = contents();
  if (!at) return;
  const line = at.root.querySelector(".told"), needle = at.root.querySelector(".needle");
  const share = (count, index) => `${(100 * (index + 0.5)) / count}%`;
  for (const spot of at.root.querySelectorAll(".spot"))
    spot.style.cssText = place ? `display:block;left:${share(at.columns, place.column)};top:${share(at.rows, place.row)}` : "";
  if (needle) needle.style.cssText = "";
  for (const dot of at.root.querySelectorAll(".ball i")) dot.style.cssText = "";
  at.root.toggleAttribute("data-kept", place !== null && place === kept);
  if (!place) return void (line.textContent = REST);
  const index = place.row * at.columns + place.column, facts = [];
  if (at.depth) {
    const metres = at.depth[index], [low, high] = at.range;
    facts.push(`${metres.toFixed(2)} m`);
    const along = high > low ? Math.min(Math.max((metres - low) / (high - low), 0), 1) : 0;
    needle.style.cssText = `display:block;left:${100 * along}%`;
  }
  if (at.normals) {
    const [x, y, z] = [0, 1, 2].map((axis) => at.normals[3 * index + axis] / 127);
    facts.push(`normal ${[x, y, z].map(signed).join(", ")}`);
    const dot = at.root.querySelector(`.ball[data-side="${z < 0 ? -1 : 1}"] i`);
    dot.style.cssText = `display:block;left:${50 + 50 * x}%;top:${50 - 50 * y}%`;
  }
  if (at.labels) facts.push(at.names[at.labels[index]]);
  line.textContent = facts.join(" · ");
}

function placeOf(event, stage) {
  const at = contents(), box = stage.getBoundingClientRect();
  const inside = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
  return {
    row: inside((event.clientY - box.top) / box.height, at.rows),
    column: inside((event.clientX - box.left) / box.width, at.columns),
  };
}

element.addEventListener("pointermove", (event) => {
  const stage = event.target.closest(".tips-depth .stage");
  mark(stage ? placeOf(event, stage) : kept);
});
element.addEventListener("pointerleave", () => mark(kept));
element.addEventListener("click", (event) => {
  if (event.target.closest(".load")) return trigger("submit");
  const stage = event.target.closest(".tips-depth .stage");
  if (!stage) return;
  const place = placeOf(event, stage);
  kept = kept && kept.row === place.row && kept.column === place.column ? null : { ...place, grid: contents().grid };
  mark(kept);
});
element.addEventListener("keydown", (event) => {
  if (!event.target.closest(".tips-depth .stage")) return;
  const at = contents(), step = event.shiftKey ? 10 : 1;
  const moves = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] };
  if (event.key === "Escape") kept = null;
  else if (event.key in moves) {
    const start = kept ?? { row: at.rows >> 1, column: at.columns >> 1 };
    const [down, right] = kept ? moves[event.key] : [0, 0];
    const inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
    kept = { row: inside(start.row + down, at.rows), column: inside(start.column + right, at.columns), grid: at.grid };
  } else return;
  event.preventDefault();
  mark(kept);
});
watch("value", () => {
  read = null;
  const at = contents();
  if (kept && (!at || at.grid !== kept.grid)) kept = null;
  mark(kept);
});
