// The photo, and what the network sees of it: the square in the middle, as evaluation crops it, under a token grid.

/** A photo to be looked at. `picture` is null for a format that the service reads and this browser does not (TIFF). */
export async function openPhoto(blob, name) {
  try {
    return { blob, name, picture: await createImageBitmap(blob) };
  } catch {
    return { blob, name, picture: null };
  }
}

/** The square of a width x height picture that the network sees. `ratio`: input side over the resized short side. */
export function cropOf(width, height, ratio) {
  const side = Math.min(width, height) * ratio;
  return { left: (width - side) / 2, top: (height - side) / 2, side };
}

/** The whole photo, dimmed where the network does not look. */
export function drawPhoto(canvas, photo, ratio) {
  const { context, width, height } = prepare(canvas);
  if (!photo?.picture) return;
  const { picture } = photo;
  const scale = Math.min(width / picture.width, height / picture.height);
  const [shownWidth, shownHeight] = [picture.width * scale, picture.height * scale];
  const [left, top] = [(width - shownWidth) / 2, (height - shownHeight) / 2];
  context.fillStyle = "#fff"; // What is transparent is white to the network too.
  context.fillRect(left, top, shownWidth, shownHeight);
  context.drawImage(picture, left, top, shownWidth, shownHeight);
  const crop = cropOf(shownWidth, shownHeight, ratio);
  const frame = [left + crop.left, top + crop.top, crop.side, crop.side];
  const outside = new Path2D();
  outside.rect(left, top, shownWidth, shownHeight);
  outside.rect(...frame);
  context.fillStyle = "rgba(10, 18, 22, 0.5)";
  context.fill(outside, "evenodd");
  context.lineWidth = 2;
  context.strokeStyle = "#fff";
  context.strokeRect(...frame);
  context.lineWidth = 1;
  context.strokeStyle = "rgba(10, 18, 22, 0.7)";
  context.strokeRect(frame[0] + 1.5, frame[1] + 1.5, frame[2] - 3, frame[3] - 3);
}

/** What one exit looks at: the crop under `grid` x `grid` tokens; without `photo` the bare grid. */
export function drawTokens(canvas, photo, ratio, grid) {
  const { context, width } = prepare(canvas);
  const picture = photo?.picture;
  if (picture) {
    const crop = cropOf(picture.width, picture.height, ratio);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, width);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, crop.left, crop.top, crop.side, crop.side, 0, 0, width, width);
    rule(context, width, grid, "rgba(255, 255, 255, 0.55)", 2.5);
    rule(context, width, grid, "rgba(10, 18, 22, 0.6)", 1);
  } else {
    rule(context, width, grid, getComputedStyle(canvas).getPropertyValue("--grid-line"), 1);
  }
}

function rule(context, side, grid, colour, lineWidth) {
  context.beginPath();
  for (let line = 1; line < grid; line += 1) {
    const place = (line * side) / grid;
    context.moveTo(place, 0);
    context.lineTo(place, side);
    context.moveTo(0, place);
    context.lineTo(side, place);
  }
  context.lineWidth = lineWidth;
  context.strokeStyle = colour;
  context.stroke();
}

/** A cleared canvas with as many pixels as its place on this screen has; drawn on in CSS pixels. */
function prepare(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * density));
  canvas.height = Math.max(1, Math.round(height * density));
  const context = canvas.getContext("2d");
  context.scale(density, density);
  return { context, width, height };
}
