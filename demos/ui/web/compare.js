// The slider between map A and map B, and the values of both under the pointer. All cards share one position, so that
// queries are compared at the same place, and it outlives an answer. Runs once per component (gr.HTML js_on_load) with `element` and `watch`; see maps.js.
let position = "50";

function show() {
  const root = element.querySelector(".tips-compare");
  if (!root) return;
  root.style.setProperty("--at", `${position}%`);
  for (const input of root.querySelectorAll(".swipe input")) input.value = position;
  for (const card of root.querySelectorAll(".pair")) if (large.has(named(card))) open(card, large.get(named(card)));
}

element.addEventListener("input", (event) => {
  if (!event.target.matches(".swipe input")) return;
  position = event.target.value;
  show();
});

// Which queries are shown large outlives an answer, as the position does.
const large = new Map();
const named = (card) => card.querySelector("figcaption b").title;

function open(card, wide) {
  card.classList.toggle("open", wide);
  card.querySelector(".size").setAttribute("aria-expanded", wide);
}

element.addEventListener("click", (event) => {
  const card = event.target.closest(".pair");
  const asked = event.target.closest(".size") || (card && !card.classList.contains("open") && event.target.closest(".stage"));
  if (!asked) return;
  large.set(named(card), !card.classList.contains("open"));
  open(card, large.get(named(card)));
});

function tell(event) {
  const stage = event.target.closest(".layer") || event.target.closest(".stage");
  if (!stage) return hush();
  const box = stage.getBoundingClientRect(), share = (value, side) => Math.min(Math.max(value / side, 0), 0.99999);
  const x = share(event.clientX - box.left, box.width), y = share(event.clientY - box.top, box.height);
  for (const card of element.querySelectorAll(".pair")) {
    const [rows, columns] = card.dataset.grid.split("x").map(Number), values = JSON.parse(card.dataset.values);
    const at = Math.floor(y * rows) * columns + Math.floor(x * columns);
    card.querySelectorAll(".here i").forEach((cell, side) => {
      cell.textContent = values[side * rows * columns + at].toFixed(2).replace("-", "−");
    });
  }
}

function hush() {
  for (const cell of element.querySelectorAll(".here i")) cell.textContent = "–";
}

element.addEventListener("pointermove", tell);
element.addEventListener("pointerleave", hush);
watch("value", show);
