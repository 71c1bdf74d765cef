// The ways in for a photo: choose, drop, paste.

import { byId } from "./dom.js";

/** Calls `take(blob, name)` for every photo that somebody brings. */
export function watchForPhotos(take) {
  const file = byId("file");
  file.addEventListener("change", () => {
    if (file.files.length > 0) take(file.files[0], file.files[0].name);
    file.value = ""; // So that the same file can be chosen again.
  });
  document.addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData?.files ?? [];
    if (pasted) take(pasted, pasted.name || "from the clipboard");
  });
  watchDrops(take);
}

function watchDrops(take) {
  const veil = byId("drop-veil");
  const bringsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!bringsFile(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    // Leaving one element for another is no leaving of the page.
    if (event.relatedTarget === null) veil.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!bringsFile(event)) return;
    event.preventDefault();
    const [dropped] = event.dataTransfer.files;
    if (dropped) take(dropped, dropped.name);
  });
}
