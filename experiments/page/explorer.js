// The explorer: settings and their controls, the link between them, tables, and the address that holds a view.

import { MATCHES, ema, kalman, movingAverage } from "./estimators.js";
import { NAMES, numbers } from "./explorer_numbers.js";
import { LOOKS, panels } from "./explorer_panels.js";
import { plain, significant, summary, tables } from "./explorer_tables.js";
import { KINDS } from "./streams.js";

const GIVEN = JSON.parse(document.getElementById("given").textContent);
const WIDEST = 20000;

/** Windows on the slider: each press of a key is another one, also among the few. */
const WINDOWS = [...new Set(Array.from({ length: 216 }, (_, i) => Math.round(10 ** (i * 0.02))))]
  .filter((window) => window < WIDEST)
  .concat(WIDEST);

/** A number as typed: also a fraction such as 1/9900. */
function parsed(text) {
  const [above, below, ...rest] = text.trim().replaceAll("−", "-").split("/");
  if (above === "" || rest.length) return NaN;
  return (below === undefined ? Number(above) : Number(above) / Number(below)) + 0; // never -0
}

function between(low, high, { whole = false } = {}) {
  const valid = (value) => value >= low && value <= high && (!whole || Number.isInteger(value));
  return { valid, says: `${whole ? "a whole number" : "a number"} from ${low} to ${high}` };
}

const straight = { at: (value) => value, position: (value) => value, show: (value) => significant(value) };
const logarithmic = {
  at: (position) => Number((10 ** position).toPrecision(4)),
  position: (value) => Math.log10(Math.max(value, 1e-300)), // no slider stands at minus infinity
  show: (value) => significant(value),
};

/** Per setting: what a slider's position means and back, how it is shown, what is valid. */
const SETTINGS = {
  beta: {
    at: (position) => Number((1 - 10 ** -position).toFixed(Math.ceil(position) + 3)),
    position: (beta) => -Math.log10(1 - beta),
    show: (beta) => String(Number(beta.toFixed(4 + Math.ceil(-Math.log10(1 - beta))))),
    ...between(0, 0.9999),
  },
  ratio: { ...logarithmic, ...between(1e-8, 100) },
  window: {
    at: (position) => WINDOWS[position],
    position: (window) => WINDOWS.findLastIndex((each) => each <= window),
    show: String,
    ...between(1, WIDEST, { whole: true }),
  },
  frequency: {
    ...logarithmic,
    at: (position) => Math.min(0.5, logarithmic.at(position)),
    ...between(1e-5, 0.5),
  },
  steps: { ...straight, ...between(100, 2000, { whole: true }) },
  sd: { ...straight, ...between(0.01, 5) },
  drift: { ...logarithmic, ...between(0, 100) },
  height: { ...straight, ...between(-100, 100) },
  slope: { ...straight, ...between(-1, 1) },
  outliers: { ...straight, ...between(0, 1) },
  scale: { ...straight, ...between(1, 20) },
  seed: { ...straight, show: String, ...between(0, 2 ** 31, { whole: true }) },
};

/** Choices from a list, each with its values. */
const CHOICES = {
  match: ["none", "noise", "lag"],
  lead: ["beta", "ratio", "window"],
  kind: Object.keys(KINDS),
  domain: ["log", "ratio"],
};

const settings = { ...structuredClone(GIVEN.defaults), show: [...NAMES] };
const element = (id) => document.getElementById(id);
const control = (name) => document.querySelector(`[data-setting="${name}"]`);

/** Give the settings that follow the values that match the leading one; what has no such value keeps its own. */
function follow() {
  if (settings.match === "none") return [];
  const { quantity, ...to } = MATCHES[settings.match];
  const leader = {
    beta: () => ema(settings.beta),
    ratio: () => kalman(settings.ratio, 1),
    window: () => movingAverage(settings.window),
  }[settings.lead]();
  const alone = [];
  for (const name of CHOICES.lead.filter((each) => each !== settings.lead)) {
    const value = to[name](leader[quantity]);
    if (Number.isFinite(value) && value >= 0 && !(name === "ratio" && value === 0)) settings[name] = value;
    else alone.push(name);
  }
  return alone;
}

const CALLED = { beta: "β", ratio: "q/r", window: "the window" };

function linkNote(alone) {
  if (settings.match === "none") return "Each estimator has its own setting.";
  const followers = CHOICES.lead.filter((name) => name !== settings.lead && !alone.includes(name));
  const what = settings.match === "noise" ? "noise gain" : "lag";
  const kept = alone.map((name) => ` No ${CALLED[name]} has this ${what}.`).join("");
  const who = followers.map((name) => CALLED[name]).join(" and ");
  return `${who} ${followers.length > 1 ? "follow" : "follows"} ${CALLED[settings.lead]}.${kept}`;
}

/** Take a setting; of the three that can be linked, the one moved last leads. */
function take(name, value) {
  settings[name] = value;
  if (CHOICES.lead.includes(name)) settings.lead = name;
  later();
}

function refuse(name, field) {
  const message = document.createElement("p");
  message.className = "error";
  message.id = `${name}-error`;
  message.textContent = `${field.value || "Nothing"} is not valid; it must be ${SETTINGS[name].says}`;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", message.id);
  control(name).append(message);
}

function accept(name, field) {
  element(`${name}-error`)?.remove();
  field.removeAttribute("aria-invalid");
  field.removeAttribute("aria-describedby");
}

function connect() {
  for (const [name, { at, valid }] of Object.entries(SETTINGS)) {
    const [field, slider] = [element(name), control(name).querySelector("[type=range]")];
    if (name === "window") slider.max = WINDOWS.length - 1;
    slider?.addEventListener("input", () => {
      accept(name, field);
      take(name, at(slider.valueAsNumber));
    });
    // Not while it is typed: on the way to 0.99 lie 0 and 0.9.
    field.addEventListener("change", () => {
      const value = parsed(field.value);
      accept(name, field);
      if (valid(value)) take(name, value);
      else refuse(name, field);
    });
  }
  for (const button of document.querySelectorAll("[data-beta]")) {
    button.addEventListener("click", () => take("beta", Number(button.dataset.beta)));
  }
  for (const input of document.querySelectorAll("[name=match]")) {
    input.addEventListener("change", () => take("match", input.value));
  }
  for (const input of document.querySelectorAll("[name=show]")) {
    input.addEventListener("change", () => {
      const boxes = [...document.querySelectorAll("[name=show]:checked")];
      take("show", boxes.map((box) => box.value));
    });
  }
  for (const name of ["kind", "domain"]) {
    element(name).addEventListener("change", (event) => take(name, event.target.value));
  }
  element("another").addEventListener("click", () => take("seed", (settings.seed + 1) % 2 ** 31));
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => {
    read();
    later();
  });
}

/** Controls that show the settings, except fields in which something is being typed or, refused, was. */
function showControls() {
  for (const [name, { position, show }] of Object.entries(SETTINGS)) {
    const [field, slider] = [element(name), control(name).querySelector("[type=range]")];
    const refused = field.hasAttribute("aria-invalid") && field.dataset.value === String(settings[name]);
    field.dataset.value = settings[name];
    if (!refused && field !== document.activeElement) {
      accept(name, field);
      field.value = show(settings[name]);
    }
    if (slider) {
      slider.value = position(settings[name]);
      slider.setAttribute("aria-valuetext", show(settings[name]));
    }
  }
  for (const button of document.querySelectorAll("[data-beta]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.beta) === settings.beta));
  }
  for (const input of document.querySelectorAll("[name=match]")) input.checked = input.value === settings.match;
  for (const input of document.querySelectorAll("[name=show]")) input.checked = settings.show.includes(input.value);
  for (const name of ["kind", "domain"]) element(name).value = settings[name];
  for (const each of document.querySelectorAll("[data-kinds]")) {
    each.hidden = !each.dataset.kinds.split(" ").includes(settings.kind);
  }
}

/** The address holds the view, so that it can be shared; numbers with all their digits. */
function write() {
  const held = new URLSearchParams();
  for (const name of Object.keys(SETTINGS)) held.set(name, settings[name]);
  for (const name of Object.keys(CHOICES)) held.set(name, settings[name]);
  held.set("show", settings.show.join(" "));
  history.replaceState(null, "", `#${held}`);
}

function read() {
  const held = new URLSearchParams(location.hash.slice(1));
  for (const [name, { valid }] of Object.entries(SETTINGS)) {
    if (held.has(name) && valid(parsed(held.get(name)))) settings[name] = parsed(held.get(name));
  }
  for (const name of Object.keys(CHOICES)) {
    if (CHOICES[name].includes(held.get(name))) settings[name] = held.get(name);
  }
  if (held.has("show")) settings.show = NAMES.filter((name) => held.get("show").split(" ").includes(name));
}

let [asked, drawn, resting, draw] = [0, 0, null, null];

/** One computation per frame however many events there are; what need not be at once waits until they rest. */
function later() {
  if (asked++ === drawn) requestAnimationFrame(update);
}

function update() {
  const alone = follow();
  const computed = numbers(settings, GIVEN.quantile);
  showControls();
  const beta = `β = ${SETTINGS.beta.show(settings.beta)}`;
  showNumbers(computed, {
    ema: beta,
    debiased_ema: beta,
    kalman: `q/r = ${plain(settings.ratio, 5)}`,
    moving_average: `N = ${settings.window}`,
  });
  draw?.(computed);
  element("link").textContent = linkNote(alone);
  // For tests and the curious: all settings and arrays of what is drawn, `pending` until all of it is.
  window.kalmean = { ...computed, pending: true };
  drawn = asked;
  clearTimeout(resting);
  resting = setTimeout(rest, 300);
}

/** What waits until the settings rest: charts out of view, what a screen reader is told, the address. */
function rest() {
  draw?.(window.kalmean, true);
  element("status").textContent = summary(window.kalmean);
  if (drawn > 0) write();
  window.kalmean.pending = draw === null;
}

for (const [name, { colour, dash }] of Object.entries(LOOKS)) {
  for (const { style } of document.querySelectorAll(`[data-look=${name}]`)) {
    style.stroke = colour;
    style.strokeDasharray = dash.join(" ");
  }
}
const showNumbers = tables();
connect();
read();
update();
draw = await panels(window.kalmean);
rest();
