// A segmentation: its regions are painted here, so that one class can be shown alone and found, true and wrong pixels
// take turns. Point at the picture or its table, or move the keyboard's focus there, to see a class; click to keep it.
// Runs once per component (gr.HTML js_on_load) with `element`; see maps.js.
const BACKGROUND = -1, IGNORED = -2;
const DARK = [11, 15, 20, 189], PALE = [240, 240, 240, 255]; // over all but what stands alone; background taken for right
let content = null, found = null, truth = null, wrong = null, colors = [], pinned = null, view = "found";

const root = () => element.querySelector(".tips-segments");

function unpack(runs, size) {
  if (!runs) return null;
  const labels = new Int16Array(size);
  for (let i = 0, at = 0; i < runs.length; at += runs[i + 1], i += 2) labels.fill(runs[i], at, at + runs[i + 1]);
  return labels;
}

function read() {
  pinned = null;
  const stage = root()?.querySelector(".stage");
  if (!stage) return;
  const [rows, columns] = stage.dataset.grid.split("x").map(Number);
  content = JSON.parse(stage.dataset.content);
  found = unpack(content.found, rows * columns);
  truth = unpack(content.truth, rows * columns);
  wrong = unpack(content.wrong, rows * columns);
  colors = content.colors.map((code) => [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16)).concat(255));
  if (!truth) view = "found";
  turn(view);
}

function paint(alone) {
  const canvas = root()?.querySelector("canvas");
  if (!canvas || !found) return;
  root().toggleAttribute("data-alone", alone !== null || view === "wrong");
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  const shown = view === "truth" ? truth : found, clear = [0, 0, 0, 0];
  for (let i = 0; i < shown.length; i++) {
    let color = colors[shown[i]] ?? clear;
    if (alone !== null) color = String(shown[i]) === alone || (alone === "-1" && shown[i] < 0) ? clear : DARK;
    else if (view === "wrong") color = !wrong[i] ? DARK : found[i] < 0 ? PALE : color; // what it was taken for
    picture.data.set(color, 4 * i);
  }
  context.putImageData(picture, 0, 0);
  for (const button of element.querySelectorAll(".legend button")) button.classList.toggle("on", button.dataset.class === alone);
}

function turn(chosen) {
  view = chosen;
  for (const button of element.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  paint(pinned);
}

let last = null;
function show(alone) {
  if (alone !== last) paint(alone);
  last = alone;
}

function pin(key) {
  pinned = pinned === key ? null : key;
  for (const button of element.querySelectorAll(".legend button"))
    button.setAttribute("aria-pressed", String(button.dataset.class === pinned));
  show(pinned);
}

function under(event, stage) {
  const [rows, columns] = stage.dataset.grid.split("x").map(Number);
  const box = stage.getBoundingClientRect();
  const inside = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
  const at = inside((event.clientY - box.top) / box.height, rows) * columns + inside((event.clientX - box.left) / box.width, columns);
  return { at, key: String(Math.max((view === "truth" ? truth : found)[at], BACKGROUND)), x: event.clientX - box.left, y: event.clientY - box.top, box };
}

function name(label) {
  return label >= 0 ? content.names[label] : label === IGNORED ? "not labelled" : "background";
}

function tag(event, stage) {
  const label = stage.querySelector(".tag"), { at, key, x, y, box } = under(event, stage);
  label.textContent = wrong?.[at] ? `${name(found[at])}, true: ${name(truth[at])}` : name(found[at]);
  label.style.cssText = `display:block;${x > box.width / 2 ? `right:${box.width - x + 10}px` : `left:${x + 12}px`};top:${Math.max(0, y - 30)}px`;
  return key;
}

function untag() {
  for (const label of element.querySelectorAll(".tag")) label.style.cssText = "";
}

element.addEventListener("pointermove", (event) => {
  const stage = event.target.closest(".tips-segments .stage"), button = event.target.closest(".legend button");
  if (!stage) untag();
  const key = stage ? tag(event, stage) : button ? button.dataset.class : null;
  if (pinned === null) show(key);
});
element.addEventListener("pointerleave", () => {
  untag();
  show(pinned);
});
element.addEventListener("focusin", (event) => {
  const button = event.target.closest(".legend button");
  if (button && pinned === null && button.matches(":focus-visible")) show(button.dataset.class);
});
element.addEventListener("focusout", () => show(pinned));
element.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && pinned !== null) pin(pinned);
});
element.addEventListener("click", (event) => {
  const stage = event.target.closest(".tips-segments .stage"), button = event.target.closest(".legend button");
  const chosen = event.target.closest("[data-view]");
  if (chosen) turn(chosen.dataset.view);
  else if (button) pin(button.dataset.class);
  else if (stage) pin(under(event, stage).key);
});
watch("value", read);
read();
