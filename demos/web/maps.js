// The grid of maps: the value under the pointer in every map at once, and clicks that pick a patch.
// Runs once per component (gr.HTML js_on_load) with `element` and `trigger`; listeners sit on the element, whose contents
// Gradio replaces with every answer.
const parsed = new WeakMap(); // card -> {source, values}

function valuesOf(card) {
  const source = card.dataset.values;
  let entry = parsed.get(card);
  if (!entry || entry.source !== source) {
    entry = { source, values: JSON.parse(source) };
    parsed.set(card, entry);
  }
  return entry.values;
}

function place(event, stage) {
  const box = stage.getBoundingClientRect();
  const inside = (value) => Math.min(Math.max(value, 0), 0.99999);
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
}

function hover(event) {
  const stage = event.target.closest(".stage");
  if (!stage) return leave();
  const [x, y] = place(event, stage);
  for (const card of element.querySelectorAll(".card")) {
    const [rows, columns] = card.dataset.grid.split("x").map(Number);
    const row = Math.floor(y * rows), column = Math.floor(x * columns);
    const spot = card.querySelector(".spot");
    spot.style.cssText = `display:block;left:${(100 * column) / columns}%;top:${(100 * row) / rows}%;` +
      `width:${100 / columns}%;height:${100 / rows}%`;
    const value = valuesOf(card)[row * columns + column];
    card.querySelector(".here dd").textContent = value.toFixed(Number(card.dataset.digits));
  }
}

function leave() {
  for (const card of element.querySelectorAll(".card")) {
    card.querySelector(".spot").style.cssText = "";
    card.querySelector(".here dd").textContent = "–";
  }
}

element.addEventListener("pointermove", hover);
element.addEventListener("pointerleave", leave);
element.addEventListener("click", (event) => {
  if (event.target.closest(".remove")) return trigger("clear");
  const stage = event.target.closest(".stage");
  if (!stage) return;
  const [width, height] = stage.closest(".tips-maps").dataset.size.split("x").map(Number);
  const [x, y] = place(event, stage);
  trigger("select", { index: [x * width, y * height] });
});
