// Tables that sort by any column, with the mouse or the keyboard, and say so to a screen reader.

const COLLATOR = new Intl.Collator("en", { numeric: true });
let tablesMade = 0;

/**
 * A table in a region that scrolls by itself. Columns: {key, label, numeric, note}; rows: objects of cells by key, each
 * {text, sort, mark, note}: sort is what it is sorted by (text where absent, null comes last), mark a class, note what a
 * screen reader hears of the mark. The first column heads its row. say: told what a press has done.
 */
export function sortable({ caption, columns, rows, say }) {
  const region = document.createElement("div");
  const id = `table-${(tablesMade += 1)}`;
  region.className = "scroll";
  region.tabIndex = 0;
  region.setAttribute("role", "region");
  region.setAttribute("aria-labelledby", id);
  const table = region.appendChild(document.createElement("table"));
  const heading = table.createCaption();
  heading.id = id;
  heading.appendChild(document.createElement("span")).textContent = caption; // stays in sight when the table scrolls
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  const made = rows.map((row) => ({ row, element: drawnRow(columns, row) }));
  body.append(...made.map(({ element }) => element));
  for (const column of columns) head.append(header(column, (sign) => arrange(column, sign)));

  function arrange(column, sign) {
    const sorted = [...made].sort((a, b) => sign * compared(a.row, b.row, column.key, sign));
    body.append(...sorted.map(({ element }) => element));
    for (const cell of head.cells) {
      if (cell.dataset.key === column.key) cell.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
    say(`${caption.split(".")[0]}: sorted by ${column.label}, ${sign > 0 ? "ascending" : "descending"}`);
  }
  return region;
}

function header(column, arrange) {
  const cell = document.createElement("th");
  cell.scope = "col";
  cell.dataset.key = column.key;
  if (!column.numeric) cell.className = "words";
  const press = cell.appendChild(document.createElement("button"));
  press.type = "button";
  press.className = "sort";
  press.textContent = column.label;
  if (column.note) {
    const note = cell.appendChild(document.createElement("small"));
    note.textContent = column.note;
  }
  press.addEventListener("click", () => arrange(cell.getAttribute("aria-sort") === "ascending" ? -1 : 1));
  return cell;
}

function drawnRow(columns, row) {
  const element = document.createElement("tr");
  columns.forEach((column, place) => {
    const { text, mark, note } = row[column.key] ?? { text: "-" };
    const cell = element.appendChild(document.createElement(place ? "td" : "th"));
    if (!place) cell.scope = "row";
    cell.dataset.key = column.key;
    cell.className = [column.numeric ? "" : "words", mark ?? ""].join(" ").trim();
    cell.append(text);
    if (note) {
      const heard = cell.appendChild(document.createElement("span"));
      heard.className = "hidden";
      heard.textContent = `, ${note}`;
    }
  });
  return element;
}

/** What is missing comes last in either direction. */
function compared(one, other, key, sign) {
  const [a, b] = [one, other].map((row) => {
    const cell = row[key];
    return cell === undefined ? null : cell.sort === undefined ? cell.text : cell.sort;
  });
  if (a === null || b === null) return sign * ((a === null) - (b === null));
  if (typeof a === "number" && typeof b === "number") return a < b ? -1 : a > b ? 1 : 0;
  return COLLATOR.compare(String(a), String(b));
}
