// The explorer's tables: numbers rounded for people, whole for programs, and why where there is none.

import { NAMES } from "./explorer_numbers.js";
import { LOOKS } from "./explorer_panels.js";

export function significant(value, digits = 5) {
  const shown = Number(value.toPrecision(digits));
  return shown !== 0 && Math.abs(shown) < 1e-3 ? shown.toExponential() : String(shown);
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const fixed = (value) => value.toFixed(2).replace("-", "−");
export const plain = (value, digits = 4) => significant(value, digits).replace("-", "−");

const NO_CUTOFF = "No cutoff: more than half the power passes at every frequency.";
const NO_DEBIASED = "No debiased EMA: β = 0 remembers nothing that could be corrected; it takes β in (0, 1).";
const NO_BAND = "No band: this estimator states no error.";
const ZERO = "A zero of the window: the wave is averaged out.";

/** Columns of a table: quantity, how it is shown, why there may be none. */
const COLUMNS = [
  ["timeConstant", plain],
  ["halfLife", plain],
  ["groupDelay", plain],
  ["noiseGain", plain],
  ["noiseGainDb", fixed],
  ["cutoff", plain, NO_CUTOFF],
  ["attenuationDb", (value) => (value > 200 ? "∞" : fixed(value + 0))],
  ["shareWithin", percent],
  [["to63", "to86", "to95"], String],
  ["stateBytes", String],
];
const ERROR_COLUMNS = [
  ["startUpRmse", (value) => plain(value, 3)],
  ["rmse", (value) => plain(value, 3)],
  ["coverage", percent, NO_BAND],
];

function swatch(name) {
  return document.querySelector(`.swatch[data-look=${name}]`).cloneNode(true);
}

/** Rows with one cell per quantity; the setting has a column of its own where there is one. */
function build(body, columns, withSetting) {
  for (const name of NAMES) {
    const row = body.insertRow();
    row.dataset.estimator = name;
    const head = document.createElement("th");
    head.scope = "row";
    head.append(swatch(name), ` ${LOOKS[name].label}`);
    row.append(head);
    if (withSetting) row.insertCell().dataset.quantity = "setting";
    for (const [quantity] of columns) {
      const cell = row.insertCell();
      [quantity].flat().forEach((each, i) => {
        const value = document.createElement("span");
        value.dataset.quantity = each;
        cell.append(i ? ", " : "", value);
      });
    }
  }
}

/** A dash, and for whom it says nothing the reason. */
function absent(reason) {
  const [dash, text] = [document.createElement("span"), document.createElement("span")];
  dash.textContent = "–";
  dash.title = reason;
  dash.setAttribute("aria-hidden", "true");
  text.className = "hidden";
  text.textContent = reason;
  return [dash, text];
}

function fill(body, columns, values, reason) {
  for (const name of NAMES) {
    const row = body.querySelector(`[data-estimator=${name}]`);
    for (const [quantity, show, why] of columns) {
      for (const each of [quantity].flat()) {
        const cell = row.querySelector(`[data-quantity=${each}]`);
        const value = values[name]?.[each];
        const none = value === undefined || Number.isNaN(value);
        cell.dataset.value = none ? "" : String(value);
        cell.title = each === "attenuationDb" && value > 200 ? ZERO : "";
        cell.replaceChildren(...(none ? absent(values[name] ? why : reason) : [show(value)]));
      }
    }
  }
}

/** Make the tables' rows; the function returned puts numbers, and what each estimator is set to, into them. */
export function tables() {
  const [body, errors] = ["numbers", "errors"].map((id) => document.getElementById(id).tBodies[0]);
  build(body, COLUMNS, true);
  build(errors, ERROR_COLUMNS, false);
  return ({ readouts, stream }, stated) => {
    fill(body, COLUMNS, readouts, NO_DEBIASED);
    fill(errors, ERROR_COLUMNS, stream.errors, NO_DEBIASED);
    for (const [name, text] of Object.entries(stated)) {
      body.querySelector(`[data-estimator=${name}] [data-quantity=setting]`).textContent = text;
    }
    document.getElementById("burn-in").textContent = stream.errors.ema.burnIn;
  };
}

/** What a screen reader is told once the settings rest, and what eyes may read too. */
export function summary({ visible, readouts }) {
  const each = visible.map((name) => {
    const { groupDelay, noiseGainDb, attenuationDb } = readouts[name];
    const [lag, noise, probe] = [plain(groupDelay), fixed(noiseGainDb), fixed(-attenuationDb)];
    return `${LOOKS[name].label}: lag ${lag}, noise ${noise} dB, probe ${probe} dB`;
  });
  return each.length ? `${each.join(". ")}.` : "No estimator is shown.";
}
