// A segmentation: point at the image or its legend to see one class alone, click a legend entry to keep it that way.
// Runs once per component (gr.HTML js_on_load) with `element`; see maps.js.
let pinned = null;

function show(key) {
  const root = element.querySelector(".tips-regions");
  if (!root) return;
  root.toggleAttribute("data-alone", key !== null);
  for (const layer of root.querySelectorAll(".layer")) layer.classList.toggle("on", layer.dataset.class === key);
  for (const button of root.querySelectorAll(".legend button")) button.classList.toggle("on", button.dataset.class === key);
}

function classAt(event, stage) {
  const [rows, columns] = stage.dataset.grid.split("x").map(Number);
  const box = stage.getBoundingClientRect();
  const inside = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
  const row = inside((event.clientY - box.top) / box.height, rows);
  const column = inside((event.clientX - box.left) / box.width, columns);
  return { key: String(JSON.parse(stage.dataset.labels)[row * columns + column]), x: event.clientX - box.left, y: event.clientY - box.top, box };
}

function tag(event, stage) {
  const label = stage.querySelector(".tag");
  const { key, x, y, box } = classAt(event, stage);
  label.textContent = JSON.parse(stage.dataset.titles)[key] ?? "";
  label.style.cssText = `display:block;${x > box.width / 2 ? `right:${box.width - x + 10}px` : `left:${x + 12}px`};top:${Math.max(0, y - 30)}px`;
  return key;
}

function pin(key) {
  pinned = pinned === key ? null : key;
  for (const button of element.querySelectorAll(".legend button"))
    button.setAttribute("aria-pressed", String(button.dataset.class === pinned));
  show(pinned);
}

element.addEventListener("pointermove", (event) => {
  const stage = event.target.closest(".stage"), button = event.target.closest(".legend button");
  for (const label of element.querySelectorAll(".tag")) if (!stage) label.style.cssText = "";
  if (stage) {
    const key = tag(event, stage);
    if (pinned === null) show(key);
  } else if (pinned === null) show(button ? button.dataset.class : null);
});
element.addEventListener("pointerleave", () => {
  for (const label of element.querySelectorAll(".tag")) label.style.cssText = "";
  show(pinned);
});
element.addEventListener("click", (event) => {
  const stage = event.target.closest(".stage"), button = event.target.closest(".legend button");
  if (button) pin(button.dataset.class);
  else if (stage) pin(classAt(event, stage).key);
});
watch("value", () => {
  pinned = null;
  show(null);
});
