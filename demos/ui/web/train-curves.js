// The curves of the Train tab: the values under the pointer. Runs once per component (gr.HTML js_on_load) with `element`;
// the charts inside are redrawn while a run goes on, so the pointer's place is kept and told again.
let at = null;  // {chart, share}: which chart is pointed at, and where across it

const short = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");

function nearest(steps, wanted) {
  let best = 0;
  for (let k = 1; k < steps.length; k++) if (Math.abs(steps[k] - wanted) < Math.abs(steps[best] - wanted)) best = k;
  return best;
}

function show() {
  for (const [number, figure] of [...element.querySelectorAll("figure")].entries()) {
    const line = figure.querySelector(".at"), told = figure.querySelector(".told");
    if (!at || at.chart !== number) {
      line.style.display = "";
      if (figure.dataset.kept) told.textContent = figure.dataset.kept;
      delete figure.dataset.kept;
      continue;
    }
    const plan = JSON.parse(figure.dataset.plan), [left, right] = plan.span;
    const wanted = Math.min(Math.max((at.share - left) / (right - left), 0), 1) * plan.last;
    const found = plan.curves.map(([name, steps, values]) => [name, nearest(steps, wanted), steps, values]);
    if (!found.length) continue;
    const step = found[0][2][found[0][1]];
    const x = (left + (step / plan.last) * (right - left)) * figure.querySelector("svg").viewBox.baseVal.width;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    line.style.display = "inline";
    figure.dataset.kept ??= told.textContent;
    const facts = found.map(([name, k, , values]) => `${name === "chance" ? "ln(batch)" : name} ${short(values[k])}`);
    told.textContent = [`Step ${step.toLocaleString("en")}`, ...facts].join(" · ");
  }
}

element.addEventListener("pointermove", (event) => {
  const figure = event.target.closest("figure");
  if (!figure) return;
  const box = figure.querySelector("svg").getBoundingClientRect();
  at = { chart: [...element.querySelectorAll("figure")].indexOf(figure), share: (event.clientX - box.left) / box.width };
  show();
});
element.addEventListener("pointerleave", () => {
  at = null;
  show();
});
watch("value", show);
