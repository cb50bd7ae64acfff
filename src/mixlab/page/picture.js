// Pixels: what mixlab.data makes of a picture, so that the browser shows and asks what Python would.

/** Return the region {top, left, height, width} of a picture that becomes the square input. */
export function squareRegion(height, width, mode) {
  if (mode === "squash") return { top: 0, left: 0, height, width };
  const side = mode === "crop" ? Math.min(height, width) : Math.max(height, width);
  return { top: (height - side) / 2, left: (width - side) / 2, height: side, width: side };
}

/** Return what each of `sizeOut` pixels reads from [start, start + length) of `sizeIn`: {first, weights}; none outside. */
export function resampleWeights(start, length, sizeIn, sizeOut) {
  const step = length / sizeOut;
  const reach = Math.max(step, 1); // the triangle widens where the region shrinks
  return Array.from({ length: sizeOut }, (_, place) => {
    const centre = start + (place + 0.5) * step;
    if (centre < 0 || centre > sizeIn) return { first: 0, weights: [] };
    const first = Math.max(0, Math.ceil(centre - reach - 0.5));
    const last = Math.min(sizeIn - 1, Math.floor(centre + reach - 0.5));
    const weights = [];
    for (let pixel = first; pixel <= last; pixel++) weights.push(1 - Math.abs(pixel + 0.5 - centre) / reach);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

/**
 * Return a picture {pixels, height, width, channels} as the network sees it, in 0 to 255: (size, size, channels).
 * `fill` is what lies outside the picture, in [0, 1] for each channel.
 */
export function asSeen({ pixels, height, width, channels }, { size, mode, fill }) {
  if (height === size && width === size) return Float32Array.from(pixels);
  const region = squareRegion(height, width, mode);
  const ground = fill.map((value) => 255 * value);
  const columns = resampleWeights(region.left, region.width, width, size);
  const rows = resampleWeights(region.top, region.height, height, size);
  const seen = new Float32Array(size * size * channels);
  const line = new Float32Array(width * channels);
  rows.forEach((row, y) => {
    readRow(pixels, row, line, ground);
    columns.forEach(({ first, weights }, x) => {
      for (let channel = 0; channel < channels; channel++) {
        let sum = ground[channel];
        for (let place = 0; place < weights.length; place++) sum += weights[place] * line[(first + place) * channels + channel];
        seen[(y * size + x) * channels + channel] = sum;
      }
    });
  });
  return seen;
}

/** Write what one row of the result reads from all rows of the picture, less the ground, into `line`. */
function readRow(pixels, { first, weights }, line, ground) {
  line.fill(0);
  weights.forEach((weight, place) => {
    const begin = (first + place) * line.length;
    for (let index = 0; index < line.length; index++) {
      line[index] += weight * (pixels[begin + index] - ground[index % ground.length]);
    }
  });
}

/** Return (height, width, channels) of RGBA whose alpha is of no interest; grey is ITU-R 601 as Pillow rounds it. */
export function dropAlpha(rgba, channels) {
  const pixels = new Uint8Array((rgba.length / 4) * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const [red, green, blue] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (channels === 1) {
      pixels[to++] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
    } else {
      pixels[to++] = red;
      pixels[to++] = green;
      pixels[to++] = blue;
    }
  }
  return pixels;
}

/** Return RGBA of pixels (..., channels) in 0 to 255. */
export function withAlpha(pixels, channels) {
  const rgba = new Uint8ClampedArray((pixels.length / channels) * 4);
  for (let from = 0, to = 0; from < pixels.length; from += channels, to += 4) {
    for (let channel = 0; channel < 3; channel++) rgba[to + channel] = pixels[from + (channels === 3 ? channel : 0)];
    rgba[to + 3] = 255;
  }
  return rgba;
}

/** Return a heat map scaled by its own maximum, in [0, 1]; 0 everywhere where nothing speaks for the class. */
export function scaled(values) {
  const largest = values.reduce((most, value) => Math.max(most, value), 0);
  return Array.from(values, (value) => (largest > 0 ? Math.max(value, 0) / largest : 0));
}

/** Return RGBA to lay over a picture: nothing where the heat is 0, more and more of red, orange and pale yellow up to 1. */
export function heatColours(values) {
  const stops = [[190, 20, 70], [250, 90, 30], [255, 170, 40], [255, 240, 150]];
  const rgba = new Uint8ClampedArray(values.length * 4);
  values.forEach((value, place) => {
    const along = value * (stops.length - 1);
    const stop = Math.min(Math.floor(along), stops.length - 2);
    stops[stop].forEach((from, channel) => {
      rgba[4 * place + channel] = from + (along - stop) * (stops[stop + 1][channel] - from);
    });
    rgba[4 * place + 3] = 255 * 0.8 * value;
  });
  return rgba;
}
