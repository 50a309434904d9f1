/** A picture to search by: chosen, dropped or pasted; made smaller here before it is sent. */

import { $ } from "./dom.js";

const SIDE = 1024;
let number = 0;

/** @returns {Promise<{key: string, blob: Blob, url: string}>} */
export async function prepared(file) {
  const blob = await smaller(file).catch(() => file); // the server may know kinds that we do not
  const key = `${Date.now()}-${number++}`;
  return { key, blob, url: URL.createObjectURL(blob) };
}

async function smaller(file) {
  const whole = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(whole.width, whole.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(whole.width * scale));
  canvas.height = Math.max(1, Math.round(whole.height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // as the index sees transparency
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(whole, 0, 0, canvas.width, canvas.height);
  whole.close();
  return new Promise((done, fail) =>
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("no blob"))), "image/jpeg", 0.92),
  );
}

const first = (data) => [...(data?.files ?? [])].find((file) => file.type.startsWith("image/") || !file.type);

/** Call `found` with each picture that a person gives. */
export function listen(found) {
  $("pick").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    if ($("file").files[0]) found($("file").files[0]);
    $("file").value = "";
  });
  addEventListener("paste", (event) => {
    const file = first(event.clipboardData);
    if (file) {
      event.preventDefault();
      found(file);
    }
  });
  let depth = 0;
  const files = (event) => event.dataTransfer?.types.includes("Files");
  const over = (by) => (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = Math.max(0, depth + by);
    $("drop").hidden = !depth;
  };
  addEventListener("dragenter", over(1));
  addEventListener("dragover", (event) => files(event) && event.preventDefault());
  addEventListener("dragleave", over(-1));
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    const file = first(event.dataTransfer);
    if (file) found(file);
  });
}
