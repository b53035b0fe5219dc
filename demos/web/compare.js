// The slider between map A and map B. All cards share one position, so that queries are compared at the same place, and
// it outlives an answer. Runs once per component (gr.HTML js_on_load) with `element` and `watch`; see maps.js.
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
watch("value", show);
