// A mask drawn over the image: an outline that fills itself when the pointer lifts, a brush and an eraser.
// Sends a small black-and-white PNG after every stroke. Runs once per component (gr.HTML js_on_load), see maps.js.
const LONG = 320; // pixels of the mask's long side
let tool = "outline", stroke = null, before = null;

const surface = () => element.querySelector(".tips-mask canvas");

function prepare() {
  const canvas = surface();
  if (!canvas || canvas.dataset.ready) return;
  const root = canvas.closest(".tips-mask"), ratio = Number(getComputedStyle(root).getPropertyValue("--ratio"));
  canvas.width = Math.max(1, Math.round(LONG * Math.min(1, ratio)));
  canvas.height = Math.max(1, Math.round(LONG * Math.min(1, 1 / ratio)));
  canvas.dataset.ready = "yes";
  for (const button of root.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  if (!root.dataset.mask) return;
  const image = new Image();
  image.onload = () => {
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set(pixels.data[i] > 127 ? [255, 255, 255, 255] : [0, 0, 0, 0], i);
    context.putImageData(pixels, 0, 0);
  };
  image.src = root.dataset.mask;
}

function place(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}

function paint(canvas, closed) {
  const context = canvas.getContext("2d");
  context.putImageData(before, 0, 0);
  context.globalCompositeOperation = tool === "erase" ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = "#fff";
  context.lineJoin = context.lineCap = "round";
  context.lineWidth = tool === "outline" ? 2 : Math.max(canvas.width, canvas.height) / 16;
  context.beginPath();
  context.moveTo(...stroke[0]);
  for (const point of stroke) context.lineTo(...point);
  if (tool === "outline" && closed) context.fill();
  context.stroke();
  context.globalCompositeOperation = "source-over";
}

function send(canvas) {
  const flat = document.createElement("canvas");
  flat.width = canvas.width;
  flat.height = canvas.height;
  const context = flat.getContext("2d");
  context.fillRect(0, 0, flat.width, flat.height);
  context.drawImage(canvas, 0, 0);
  trigger("input", { png: flat.toDataURL("image/png") });
}

element.addEventListener("pointerdown", (event) => {
  const canvas = event.target.closest(".tips-mask canvas");
  if (!canvas || event.button) return;
  prepare();
  canvas.setPointerCapture(event.pointerId);
  before = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  stroke = [place(event, canvas)];
  paint(canvas, false);
});
element.addEventListener("pointermove", (event) => {
  if (!stroke) return;
  stroke.push(place(event, surface()));
  paint(surface(), false);
});
element.addEventListener("pointerup", () => {
  if (!stroke) return;
  paint(surface(), true);
  stroke = null;
  send(surface());
});
element.addEventListener("pointercancel", () => {
  if (stroke) surface().getContext("2d").putImageData(before, 0, 0);
  stroke = null;
});
element.addEventListener("click", (event) => {
  const button = event.target.closest(".tips-mask [data-tool]");
  if (!button) return;
  if (button.dataset.tool === "clear") {
    surface().getContext("2d").clearRect(0, 0, surface().width, surface().height);
    return send(surface());
  }
  tool = button.dataset.tool;
  for (const each of element.querySelectorAll("[data-tool]")) each.setAttribute("aria-pressed", String(each === button));
});
watch("value", prepare);
prepare();
