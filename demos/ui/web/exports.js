// The export row and the code panel below it, each with this script of its own. Runs once per component (gr.HTML
// js_on_load) with `element` and `trigger`.
element.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.kind) return trigger("select", { kind: button.dataset.kind });
  if (button.matches(".close")) return trigger("clear");
  if (!button.matches(".copy")) return;
  const code = button.closest("section").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {  // a page served without https has no clipboard: mark the text, so that Ctrl-C takes it
    getSelection().selectAllChildren(code);
    button.textContent = "Press Ctrl-C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1600);
});
