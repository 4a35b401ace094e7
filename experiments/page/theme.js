// The button that turns a page dark or light; until it is pressed the system's choice holds.

const button = document.querySelector("[data-theme-toggle]");
const system = window.matchMedia("(prefers-color-scheme: dark)");

function show() {
  const dark = (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  button.textContent = dark ? "Light" : "Dark";
  button.setAttribute("aria-label", `${dark ? "Light" : "Dark"} theme`);
  return dark;
}

button.addEventListener("click", () => {
  document.documentElement.dataset.theme = show() ? "light" : "dark";
  show();
});
system.addEventListener("change", show);
show();
