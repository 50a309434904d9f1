/** A picture to search by: chosen, dropped or pasted; scaled down before it is sent. */

import { $ } from "./dom.js";

const MAX_SIDE = 1024;
let uploads = 0;

/** @returns {Promise<{key: string, blob: Blob, url: string}>} */
export async function prepare(file) {
  const blob = await scaleDown(file).catch(() => file); // the server may read formats that browsers do not
  const key = `${Date.now()}-${uploads++}`;
  return { key, blob, url: URL.createObjectURL(blob) };
}

async function scaleDown(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // as the index sees transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no blob"))), "image/jpeg", 0.92),
  );
}

const firstImage = (data) => [...(data?.files ?? [])].find((file) => file.type.startsWith("image/") || !file.type);

/** Call `onFile` with each picture that a person gives. */
export function listen(onFile) {
  $("pick").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    if ($("file").files[0]) onFile($("file").files[0]);
    $("file").value = "";
  });
  addEventListener("paste", (event) => {
    const file = firstImage(event.clipboardData);
    if (file) {
      event.preventDefault();
      onFile(file);
    }
  });
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const hover = (by) => (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = Math.max(0, depth + by);
    $("drop").hidden = !depth;
  };
  addEventListener("dragenter", hover(1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("dragleave", hover(-1));
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    const file = firstImage(event.dataTransfer);
    if (file) onFile(file);
  });
}
