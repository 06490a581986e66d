/** Rows for `display.table`. */
export function table(rows, columns) {
  return { columns: columns ?? [], rows };
}
