// Names that the theme leaves out: of the search dialog, and of the buttons of a block of code, which are no landmark.
function label() {
  document.querySelector(".md-search").setAttribute("aria-label", "Search");
  for (const buttons of document.querySelectorAll(".md-code__nav:not([aria-label])")) {
    buttons.setAttribute("role", "group");
    buttons.setAttribute("aria-label", "Code block");
  }
}
new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
label();
