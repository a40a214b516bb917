// What a reader presses: filters, fields, tabs, dialogs, keys; and the first drawing of the page.

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-filter]");
  if (!button) return;
  setFilter(button.dataset.filter);
  // In one column the images are further down than what was pressed.
  if (button.matches(".cell") && matchMedia("(max-width: 67.99rem)").matches) {
    byId("images").scrollIntoView({ block: "start" });
  }
});
byId("clear").addEventListener("click", () => {
  Object.assign(state, { filter: "all", type: "", query: "" });
  byId("search").value = "";
  if (byId("type")) byId("type").value = "";
  update();
  byId("search").focus();
});
byId("search").addEventListener("input", (event) => {
  state.query = event.target.value;
  show();
});
byId("sort").addEventListener("change", (event) => {
  state.sort = event.target.value;
  update();
});
if (LABELLED) {
  const kinds = [...new Set(IMAGES.filter((image) => image.y === -1 && image.type !== null).map((image) => image.type))].sort();
  byId("type").append(
    element("option", { value: "", text: "All types" }),
    ...kinds.map((kind) => element("option", { value: kind, text: kind })),
  );
  byId("type").hidden = kinds.length === 0;
  byId("type").addEventListener("change", (event) => {
    state.type = event.target.value;
    show();
  });
}

for (const prefix of ["", "detail-"]) {
  byId(`${prefix}map`).addEventListener("change", (event) => setView({ map: event.target.checked }));
  byId(`${prefix}opacity`).addEventListener("input", (event) =>
    setView({ opacity: Number(event.target.value), map: true }),
  );
  if (OUTLINED) {
    byId(`${prefix}outline`).addEventListener("change", (event) => setView({ outline: event.target.checked }));
  }
}

// --- threshold, costs

const slider = byId("slider");
slider.min = 0;
slider.max = AXIS.steps;
slider.addEventListener("input", () => setThreshold(AXIS.at(Number(slider.value))));
byId("threshold").addEventListener("input", (event) => {
  const value = parsedNumber(event.target.value);
  if (Number.isFinite(value)) setThreshold(value);
  else showProblem("threshold", true);
});
byId("threshold").addEventListener("blur", update);
if (LABELLED) {
  byId("cost-miss").value = state.costs.miss;
  byId("cost-alarm").value = state.costs.falseAlarm;
  byId("prevalence").value = Number((100 * state.costs.prevalence).toPrecision(3));
  const numbers = [["cost-miss", "miss", 1, Infinity], ["cost-alarm", "falseAlarm", 1, Infinity], ["prevalence", "prevalence", 100, 1]];
  for (const [id, key, unit, most] of numbers) {
    byId(id).addEventListener("input", (event) => {
      const text = event.target.value;
      // One thousand, or one? In a cost that is no detail.
      const value = /^\s*[1-9]\d{0,2},\d{3}\s*$/.test(text) ? NaN : parsedNumber(text) / unit;
      const fits = Number.isFinite(value) && value >= 0 && value <= most;
      showProblem(id, !fits);
      if (!fits) return;
      state.costs[key] = value;
      update();
    });
  }
}

// --- tabs, dialogs, keyboard, files

const tabs = [...document.querySelectorAll("[role=tab]")];
function selectTab(id) {
  for (const tab of tabs) {
    const selected = tab.id === id;
    tab.setAttribute("aria-selected", `${selected}`);
    tab.tabIndex = selected ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !selected;
  }
}
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => selectTab(tab.id));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    const other = tabs[(i + step + tabs.length) % tabs.length];
    selectTab(other.id);
    other.focus();
    event.stopPropagation();
  });
}
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
byId("help-button").addEventListener("click", () => byId("help").showModal());

const isDark = () =>
  (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function showTheme(chosen) {
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  byId("theme").setAttribute("aria-pressed", `${isDark()}`);
}

const THEME = "skanomaly report theme";
function switchTheme() {
  const chosen = isDark() ? "light" : "dark";
  showTheme(chosen);
  try {
    localStorage.setItem(THEME, chosen);
  } catch {
    // Of a file, some browsers keep nothing: it is chosen until the page is closed.
  }
}
byId("theme").addEventListener("click", switchTheme);

byId("csv").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([verdictsCsv(state.threshold)], { type: "text/csv" }));
  const name = DATA.name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 80) || "report";
  element("a", { href: url, download: `${name}-decisions.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});

const KEYS = {
  m: () => setView({ map: !state.map }),
  o: () => setView({ outline: !state.outline }),
  "[": () => setView({ map: true, opacity: Math.max(0, state.opacity - 10) }),
  "]": () => setView({ map: true, opacity: Math.min(100, state.opacity + 10) }),
  "-": () => moveThreshold(-1),
  "+": () => moveThreshold(1),
  "=": () => moveThreshold(1),
  0: () => setThreshold(DATA.threshold),
  "/": () => { selectTab("tab-images"); byId("search").focus(); },
  t: switchTheme,
  "?": () => byId("help").showModal(),
};
FILTERS.forEach((name, i) => { KEYS[i + 1] = () => setFilter(name); });
const IN_DIALOG = new Set(["m", "o", "[", "]", "t"]);

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  if (event.ctrlKey || event.altKey || event.metaKey || typing) return;
  const key = event.key.toLowerCase(); // whatever the caps lock
  const modal = document.querySelector("dialog[open]");
  if (!KEYS[key] || (modal && !IN_DIALOG.has(key))) return;
  KEYS[key]();
  event.preventDefault();
});

// Folded on a phone, where the images come first; on paper nothing is folded.
const folds = [...document.querySelectorAll("details.fold")];
const narrow = matchMedia("(max-width: 43.99rem)");
for (const fold of folds) fold.open = !narrow.matches && !fold.matches(".closed");
addEventListener("beforeprint", () => {
  gallery.loadVisible();
  for (const fold of folds) {
    fold.dataset.before = fold.open;
    fold.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const fold of folds) fold.open = fold.dataset.before === "true";
});

let kept = null;
try {
  kept = localStorage.getItem(THEME);
} catch {
  // As above.
}
showTheme(kept);
makeTiles();
makeMatrix();
makePresets();
makeChips();
fillLegends();
setView({});
update();
document.body.classList.add("ready");
