/** Rows of pictures as high as each other that fill the width: where each goes, before any is there. */

const [SLIM, WIDE] = [0.62, 2.6]; // shapes beyond these are cropped
const STRETCH = 1.3; // the last row is not made higher than this

/** How high rows should be for a width, in pixels: two pictures on a phone, more on a wall. */
export const wanted = (width) => Math.round(Math.min(300, 150 + width * 0.04));

const shape = (hit) => (hit.width > 0 && hit.height > 0 ? Math.min(Math.max(hit.width / hit.height, SLIM), WIDE) : 1);

/**
 * @param {{width: number, height: number}[]} hits
 * @param {{width: number, gap: number, foot: number}} room  `foot`: what stands below each picture
 * @returns {{rows: {start: number, end: number, y: number, height: number}[],
 *   boxes: {x: number, y: number, width: number, height: number}[], height: number}}
 */
export function laid(hits, room) {
  const target = wanted(room.width);
  const rows = [];
  const boxes = [];
  let y = 0;
  let start = 0;
  let sum = 0;
  const close = (end, exact) => {
    const height = Math.round(exact) + room.foot;
    let edge = 0; // rounded as a whole, so that rows end where the window does
    for (let at = start; at < end; at++) {
      const x = Math.round(edge);
      edge += shape(hits[at]) * exact;
      boxes.push({ x, y, width: Math.round(edge) - x, height });
      edge += room.gap;
    }
    rows.push({ start, end, y, height });
    y += height + room.gap;
    [start, sum] = [end, 0];
  };
  const fitting = (count, shapes) => (room.width - room.gap * (count - 1)) / shapes;
  for (let at = 0; at < hits.length; at++) {
    const one = shape(hits[at]);
    const before = fitting(at - start, sum); // the row's height without this one, and with it
    const after = fitting(at - start + 1, sum + one);
    if (at > start && after < target && before / target < target / after) close(at, before);
    sum += one;
    const height = fitting(at - start + 1, sum);
    if (height <= target) close(at + 1, height);
  }
  if (start < hits.length) {
    const like = rows.length ? rows.at(-1).height - room.foot : target;
    close(hits.length, Math.min(fitting(hits.length - start, sum), like, target * STRETCH));
  }
  return { rows, boxes, height: Math.max(0, y - room.gap) };
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

/** The picture in the row beside that of `at`, above (-1) or below (1), which is nearest to it. */
export function beside({ rows, boxes }, at, by) {
  const row = rows[rows.findIndex((one) => at < one.end) + by];
  if (!row) return -1;
  const centre = (one) => boxes[one].x + boxes[one].width / 2;
  let best = row.start;
  for (let one = row.start; one < row.end; one++) {
    if (Math.abs(centre(one) - centre(at)) < Math.abs(centre(best) - centre(at))) best = one;
  }
  return best;
}
