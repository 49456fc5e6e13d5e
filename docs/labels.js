// Names that the theme leaves out: of the search dialog, and of the buttons of each block of code.
function label() {
  document.querySelector(".md-search").setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-code__nav").forEach((buttons, at) => buttons.setAttribute("aria-label", `Code block ${at + 1}`));
}
new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
label();
