// The grid of maps: the value under the pointer in every map of the image at once, clicks that pick a patch, words that
// are asked for. Runs once per component (gr.HTML js_on_load) with `element` and `trigger`; listeners sit on the element,
// whose contents Gradio replaces with every answer.
const parsed = new WeakMap(); // card -> {source, values}
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
let current = null; // [row, column] that the arrow keys have reached

function valuesOf(card) {
  const source = card.dataset.values;
  let entry = parsed.get(card);
  if (!entry || entry.source !== source) {
    entry = { source, values: JSON.parse(source) };
    parsed.set(card, entry);
  }
  return entry.values;
}

const gridOf = (card) => card.dataset.grid.split("x").map(Number);

// Maps of the second image answer for themselves only: its places are not those of the first.
function companions(card) {
  return card.matches(".other") ? [card] : [...element.querySelectorAll(".card[data-grid]:not(.other)")];
}

function place(event, stage) {
  const box = stage.getBoundingClientRect();
  const inside = (value) => Math.min(Math.max(value, 0), 0.99999);
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
}

function show(card, x, y) {
  leave();
  for (const each of companions(card)) {
    const [rows, columns] = gridOf(each);
    const row = Math.floor(y * rows), column = Math.floor(x * columns);
    each.querySelector(".spot").style.cssText = `display:block;left:${(100 * column) / columns}%;` +
      `top:${(100 * row) / rows}%;width:${100 / columns}%;height:${100 / rows}%`;
    const value = valuesOf(each)[row * columns + column];
    each.querySelector(".here dd").textContent = value.toFixed(Number(each.dataset.digits));
  }
}

function leave() {
  for (const card of element.querySelectorAll(".card[data-grid]")) {
    card.querySelector(".spot").style.cssText = "";
    card.querySelector(".here dd").textContent = "–";
  }
}

function pick(stage, x, y) {
  if (stage.closest(".other")) return;
  const [width, height] = stage.closest(".tips-maps").dataset.size.split("x").map(Number);
  trigger("select", { index: [x * width, y * height] });
}

element.addEventListener("pointermove", (event) => {
  const stage = event.target.closest(".stage");
  if (stage) show(stage.closest(".card"), ...place(event, stage));
  else leave();
});
element.addEventListener("pointerleave", leave);
element.addEventListener("focusout", leave);
element.addEventListener("click", (event) => {
  if (event.target.closest(".remove")) return trigger("clear");
  const word = event.target.closest("[data-word]");
  if (word) return trigger("submit", { word: word.dataset.word });
  const stage = event.target.closest(".stage");
  if (stage) pick(stage, ...place(event, stage));
});
element.addEventListener("keydown", (event) => {
  if (!event.target.matches(".stage")) return;
  const card = event.target.closest(".card"), [rows, columns] = gridOf(card);
  const centre = () => [(current[1] + 0.5) / columns, (current[0] + 0.5) / rows];
  if (STEPS[event.key]) {
    const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
    const from = current ?? [Math.floor(rows / 2), Math.floor(columns / 2)], step = STEPS[event.key];
    current = [within(from[0] + step[0], rows), within(from[1] + step[1], columns)];
    show(card, ...centre());
  } else if ((event.key === "Enter" || event.key === " ") && current) pick(event.target, ...centre());
  else return;
  event.preventDefault();
});
