// What a run says, out of the page: columns unpacked, numbers written, a command to copy.

/** The data of an element, read when it is needed. */
export function held(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** The data of an element that holds it as gzip in base64. */
export async function unzipped(id) {
  const bytes = Uint8Array.from(atob(held(id)), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Rows of a packed summary, as objects; infinities come as text, and what is missing as null. */
export function unpacked({ columns, rows }, words) {
  const full = Object.entries(columns).map(([name, packed]) => [name, column(packed, rows)]);
  return Array.from({ length: rows }, (_, place) =>
    Object.fromEntries(full.map(([name, values]) => [name, words.has(name) ? values[place] : number(values[place])])),
  );
}

function column(packed, rows) {
  if (Array.isArray(packed)) return packed;
  return packed.at ? packed.at.map((place) => packed.levels[place]) : Array(rows).fill(packed.same);
}

/** A number, null where there is none. */
export function number(value) {
  return value === null || value === "" ? null : Number(value);
}

/** A number in at most six digits. */
export function digits(value) {
  if (value === null || value === undefined) return "-";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return String(value);
  return size >= 1e-4 && size < 1e6
    ? String(Number(value.toPrecision(6)))
    : value.toExponential(4).replace(/\.?0+e/, "e");
}

/** A mean with its half-width. */
export function written(text) {
  return text.replace("~", " ± ");
}

/** An element with attributes and children. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Give a select these options; the value that it had stays if it is still there. */
export function offer(select, options) {
  const before = select.options.length ? select.value : null;
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

/** A text in a box with a button that copies it, or marks it for the keyboard where that is refused. */
export function copyable(text, what, say) {
  const code = make("code", { tabindex: "0" }, text);
  const press = make("button", { type: "button", "aria-label": `Copy ${what}` }, "Copy");
  press.addEventListener("click", async () => {
    const done = await copied(text, code);
    press.textContent = done ? "Copied" : "Marked: Ctrl+C";
    say(done ? `Copied ${what}` : `Marked ${what}; copy it with Control C`);
    setTimeout(() => (press.textContent = "Copy"), 4000);
  });
  return make("div", { class: "copyable" }, code, press);
}

async function copied(text, code) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}

export const at = (id) => document.getElementById(id);

/** What the page as a whole says of itself. */
export const about = held("about");

/** Let a screen reader hear what a control has done. */
export function say(text) {
  at("status").textContent = text;
}

/** Cells of a table: words, and a number. */
export const words = (text) => ({ text: text === "" ? "-" : text });
export const count = (value) => ({ text: digits(value), sort: value });

/** Columns of a table that hold numbers, by key and label. */
export const numeric = (pairs) => pairs.map(([key, label]) => ({ key, label, numeric: true }));

/** Put a section's note and table in their places; returned is that of its chart, hidden where there can be none. */
export function fill(section, note, table) {
  at(section).querySelector(".note").textContent = note;
  at(section).querySelector(".numbers").replaceChildren(table);
  const place = at(section).querySelector(".chart");
  place.hidden = about.without !== "";
  if (about.without)
    at(section).querySelector(".note").textContent += ` ${about.without}, then python -m experiments.report DIR.`;
  return place;
}
