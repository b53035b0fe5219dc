// The Depth tab: metres, direction and class under the pointer, in all pictures at once, on the colour bar and on the
// balls; a click keeps a place, arrow keys move it. Classes shown alone. And the buttons that ask for
// heads or end their download.
// Runs once per component (gr.HTML js_on_load) with `element`, `trigger` and `watch`; listeners sit on the element, whose
// contents Gradio replaces with every answer.
let read = null; // what is unpacked of the contents
let kept = null; // {row, column} that stays marked, in a grid of kept.grid
let pinned = null; // the class that stays alone
let alone = null; // the class that is shown alone

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

// The class alone: everything that has not its colour goes dark.
function isolate(key) {
  const at = contents();
  if (!at || key === alone) return;
  const canvas = at.root.querySelector("canvas"), layer = at.root.querySelector(".layer");
  if (!layer?.naturalWidth) return; // not decoded yet
  alone = key;
  for (const button of at.root.querySelectorAll(".legend button")) button.classList.toggle("on", button.dataset.class === key);
  const button = key === null ? null : at.root.querySelector(`.legend button[data-class="${key}"]`);
  at.root.toggleAttribute("data-alone", Boolean(button));
  canvas.hidden = !button;
  if (!button) return;
  canvas.width = layer.naturalWidth;
  canvas.height = layer.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(layer, 0, 0);
  const picture = context.getImageData(0, 0, canvas.width, canvas.height), data = picture.data;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(button.dataset.color.slice(at, at + 2), 16));
  for (let i = 0; i < data.length; i += 4) {
    const own = data[i] === red && data[i + 1] === green && data[i + 2] === blue;
    [data[i], data[i + 1], data[i + 2], data[i + 3]] = own ? [0, 0, 0, 0] : [11, 15, 20, 189];
  }
  context.putImageData(picture, 0, 0);
}

function pin(key) {
  pinned = pinned === key ? null : key;
  for (const button of element.querySelectorAll(".legend button"))
    button.setAttribute("aria-pressed", String(button.dataset.class === pinned));
  isolate(pinned);
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
  const stage = event.target.closest(".tips-depth .stage"), button = event.target.closest(".tips-depth .legend button");
  const place = stage ? placeOf(event, stage) : null, at = contents();
  mark(place ?? kept);
  if (pinned !== null || !at) return;
  if (stage && stage.closest(".classes")) isolate(String(at.labels[place.row * at.columns + place.column]));
  else isolate(button ? button.dataset.class : null);
});
element.addEventListener("pointerleave", () => {
  mark(kept);
  isolate(pinned);
});
element.addEventListener("focusin", (event) => {
  const button = event.target.closest(".tips-depth .legend button");
  if (button && pinned === null && button.matches(":focus-visible")) isolate(button.dataset.class);
});
element.addEventListener("focusout", () => isolate(pinned));
element.addEventListener("click", (event) => {
  if (event.target.closest(".load")) return trigger("submit");
  if (event.target.closest(".cancel")) return trigger("clear");
  const button = event.target.closest(".tips-depth .legend button");
  if (button) return pin(button.dataset.class);
  const stage = event.target.closest(".tips-depth .stage");
  if (!stage) return;
  const place = placeOf(event, stage);
  kept = kept && kept.row === place.row && kept.column === place.column ? null : { ...place, grid: contents().grid };
  mark(kept);
});
element.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && pinned !== null) return pin(pinned);
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
  read = pinned = alone = null; // classes and pictures are others now
  const at = contents();
  if (kept && (!at || at.grid !== kept.grid)) kept = null;
  mark(kept);
});
