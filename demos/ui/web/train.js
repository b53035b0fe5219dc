// The head of the Train tab says whether it can be seen, so that a page that nobody looks at asks for nothing. Runs once
// per component (gr.HTML js_on_load) with `element` and `trigger`.
let told = null;

function tell() {
  const visible = element.offsetParent !== null && document.visibilityState === "visible";
  if (visible !== told) {
    told = visible;
    trigger("select", { visible });
  }
}

new ResizeObserver(tell).observe(element);  // a tab that is closed has no size
document.addEventListener("visibilitychange", tell);
