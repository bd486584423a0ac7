"use strict";
// A click on a column's title sorts the table by it, a second click the other way round; numbers as numbers.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const title = button.parentElement;
    const body = title.closest("table").tBodies[0];
    const column = title.cellIndex;
    const rising = title.getAttribute("aria-sort") !== "ascending";
    const value = (row) => row.cells[column].dataset.sort;
    const number = (text) => (text === "" ? NaN : Number(text.replace(/^(-?)inf$/, "$1Infinity"))); // Python's inf
    const compare = (one, two) => {
      const [a, b] = [number(value(one)), number(value(two))];
      return Number.isNaN(a) || Number.isNaN(b) ? value(one).localeCompare(value(two)) : a - b;
    };
    const rows = [...body.rows].sort((one, two) => (rising ? compare(one, two) : compare(two, one)));
    for (const other of title.parentElement.cells) other.setAttribute("aria-sort", "none");
    title.setAttribute("aria-sort", rising ? "ascending" : "descending");
    body.append(...rows);
  });
}
