/** Justified rows: where each picture goes, before any is loaded. */

const [MIN_RATIO, MAX_RATIO] = [0.62, 2.6]; // width by height; pictures beyond are cropped
const MAX_STRETCH = 1.3; // the last row is not made higher than this

/** The height of rows for a width, in pixels. */
export const rowHeight = (width) => Math.round(Math.min(300, 150 + width * 0.04));

const aspectRatio = (hit) => (hit.width > 0 && hit.height > 0 ? Math.min(Math.max(hit.width / hit.height, MIN_RATIO), MAX_RATIO) : 1);

/**
 * @param {{width: number, height: number}[]} hits
 * @param {{width: number, gap: number, foot: number}} options  `foot`: what stands below each picture
 * @returns {{rows: {start: number, end: number, y: number, height: number}[],
 *   boxes: {x: number, y: number, width: number, height: number}[], height: number}}
 */
export function layOut(hits, options) {
  const target = rowHeight(options.width);
  const rows = [];
  const boxes = [];
  let y = 0;
  let start = 0;
  let sum = 0;
  const close = (end, exact) => {
    const height = Math.round(exact) + options.foot;
    let edge = 0; // rounded as a whole, so that rows end where the window does
    for (let index = start; index < end; index++) {
      const x = Math.round(edge);
      edge += aspectRatio(hits[index]) * exact;
      boxes.push({ x, y, width: Math.round(edge) - x, height });
      edge += options.gap;
    }
    rows.push({ start, end, y, height });
    y += height + options.gap;
    [start, sum] = [end, 0];
  };
  const heightFor = (count, ratios) => (options.width - options.gap * (count - 1)) / ratios;
  for (let index = 0; index < hits.length; index++) {
    const ratio = aspectRatio(hits[index]);
    const before = heightFor(index - start, sum); // the row's height without this picture, and with it
    const after = heightFor(index - start + 1, sum + ratio);
    if (index > start && after < target && before / target < target / after) close(index, before);
    sum += ratio;
    const height = heightFor(index - start + 1, sum);
    if (height <= target) close(index + 1, height);
  }
  if (start < hits.length) {
    const previous = rows.length ? rows.at(-1).height - options.foot : target;
    close(hits.length, Math.min(heightFor(hits.length - start, sum), previous, target * MAX_STRETCH));
  }
  return { rows, boxes, height: Math.max(0, y - options.gap) };
}

/** The first row that ends below `y`. */
export function rowAt(rows, y) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].y + rows[middle].height < y) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The nearest picture in the row above (-1) or below (1) that of `index`; -1 if there is none. */
export function adjacent({ rows, boxes }, index, by) {
  const row = rows[rows.findIndex((candidate) => index < candidate.end) + by];
  if (!row) return -1;
  const centre = (i) => boxes[i].x + boxes[i].width / 2;
  let best = row.start;
  for (let i = row.start; i < row.end; i++) {
    if (Math.abs(centre(i) - centre(index)) < Math.abs(centre(best) - centre(index))) best = i;
  }
  return best;
}
