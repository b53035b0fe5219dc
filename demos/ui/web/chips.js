
{
  // Chips that were not asked are red and say why. The sentences stand in the result, whose contents Gradio replaces with
  // every answer, the chips in the field of the same tab. `element` is the result.
  const field = () => [...(element.closest(".tips-result") ?? document).querySelectorAll(".tips-queries .token")];
  const mark = () => {
    const refused = JSON.parse(element.querySelector("[data-refused]")?.dataset.refused ?? "{}");
    for (const chip of field()) {
      const why = refused[chip.textContent.replace("×", "").trim()];
      chip.classList.toggle("refused", why !== undefined);
      chip.title = why ?? "";
      if (why === undefined) chip.removeAttribute("title");
    }
  };
  new MutationObserver(mark).observe(element, { childList: true, subtree: true });
  mark();
}
