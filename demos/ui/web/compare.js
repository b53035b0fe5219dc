// The slider between map A and map B, and the values of both under the pointer. All cards share one position, so that
// queries are compared at the same place, and it outlives an answer. Runs once per component (gr.HTML js_on_load) with `element` and `watch`; see maps.js.
let position = "50";

function show() {
  const root = element.querySelector(".tips-compare");
  if (!root) return;
  root.style.setProperty("--at", `${position}%`);
  for (const input of root.querySelectorAll(".swipe input")) input.value = position;
}

element.addEventListener("input", (event) => {
  if (!event.target.matches(".swipe input")) return;
  position = event.target.value;
  show();
});

function tell(event) {
  const stage = event.target.closest(".stage");
  if (!stage) return hush();
  const box = stage.getBoundingClientRect(), share = (value, side) => Math.min(Math.max(value / side, 0), 0.99999);
  const x = share(event.clientX - box.left, box.width), y = share(event.clientY - box.top, box.height);
  for (const card of element.querySelectorAll(".pair")) {
    const [rows, columns] = card.dataset.grid.split("x").map(Number), values = JSON.parse(card.dataset.values);
    const at = Math.floor(y * rows) * columns + Math.floor(x * columns);
    card.querySelectorAll(".here td").forEach((cell, side) => {
      cell.textContent = values[side * rows * columns + at].toFixed(2).replace("-", "−");
    });
  }
}

function hush() {
  for (const cell of element.querySelectorAll(".here td")) cell.textContent = "–";
}

element.addEventListener("pointermove", tell);
element.addEventListener("pointerleave", hush);
watch("value", show);
