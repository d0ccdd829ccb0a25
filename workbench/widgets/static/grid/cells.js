// Cells are [row, column]; many of them are a mask, a byte for each cell of the map, row by row.

export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

export function same(a, b) {
  return a === b || (Array.isArray(a) && Array.isArray(b) && a[0] === b[0] && a[1] === b[1]);
}

// First row, last row, first column, last column of a box from one cell to another.
export function corners({ from, to }) {
  return [Math.min(from[0], to[0]), Math.max(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[1], to[1])];
}

// Cells that the map does not have are left out.
export function maskOf(cells, { nRows, nCols }) {
  const mask = new Uint8Array(nRows * nCols);
  for (const [r, c] of cells) if (r < nRows && c < nCols) mask[r * nCols + c] = 1;
  return mask;
}

export function cellsOf(mask, nCols) {
  const cells = [];
  for (let i = 0; i < mask.length; i++) if (mask[i]) cells.push([Math.floor(i / nCols), i % nCols]);
  return cells;
}
