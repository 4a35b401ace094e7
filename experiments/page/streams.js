// Noisy streams with a known level, drawn in the page from a seed.

/** Bits for seeds: neighbouring seeds give unlike streams (splitmix32; Steele, Lea, Flood 2014). */
function splitmix32(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let bits = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
    return (bits ^ (bits >>> 15)) >>> 0;
  };
}

/**
 * Uniform numbers in [0, 1) with 53 bits, from sfc32: the 32-bit sibling of the generator that the library's own
 * streams use, short, quick and without known faults (Doty-Humphrey, PractRand). Ingredients of one stream are
 * independent: a louder noise or a longer stream leaves all others as they were.
 */
export function uniforms(seed, ingredient) {
  const bits = splitmix32(Math.imul(seed, 0x85ebca6b) ^ Math.imul(ingredient + 1, 0xc2b2ae35));
  let [a, b, c, d] = [bits(), bits(), bits(), 1];
  const next = () => {
    const out = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + out) | 0;
    return out >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
}

/** Standard normal numbers by Marsaglia's polar method. */
export function normals(seed, ingredient) {
  const uniform = uniforms(seed, ingredient);
  let spare = null;
  return () => {
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    let [u, v, square] = [0, 0, 0];
    do {
      u = 2 * uniform() - 1;
      v = 2 * uniform() - 1;
      square = u * u + v * v;
    } while (square >= 1 || square === 0);
    const scale = Math.sqrt((-2 * Math.log(square)) / square);
    spare = v * scale;
    return u * scale;
  };
}

const [NOISE, OUTLIERS, WALK] = [0, 1, 2];

/** Kinds of level: its value at each sample, of settings in units of the noise's standard deviation `sd`. */
export const KINDS = {
  step: ({ steps, sd, height }) => (t) => 2 + (t >= Math.floor(steps / 2) ? height * sd : 0),
  ramp: ({ sd, slope }) => (t) => 2 + slope * sd * t,
  walk: (settings) => walked(2, settings),
  ratio: (settings) => walked(Math.log(2.1), settings),
};

function walked(start, { sd, drift, seed }) {
  const normal = normals(seed, WALK);
  let level = start;
  return () => (level += Math.sqrt(drift) * sd * normal());
}

/**
 * Samples and true level, and the noise variance that a Kalman filter is told. A gradient ratio is lognormal: its
 * logarithm is a random walk under Gaussian noise, and is what is seen unless `domain` is "ratio".
 */
export function stream(settings) {
  const { kind, domain, steps, sd, outliers, scale, seed } = settings;
  const [normal, uniform] = [normals(seed, NOISE), uniforms(seed, OUTLIERS)];
  const raw = kind === "ratio" && domain === "ratio";
  const seen = raw ? Math.exp : (value) => value;
  const at = KINDS[kind](settings);
  const [samples, level] = [new Float64Array(steps), new Float64Array(steps)];
  for (let t = 0; t < steps; t++) {
    const value = at(t);
    const noise = sd * normal() * (uniform() < outliers ? scale : 1);
    level[t] = seen(value);
    samples[t] = seen(value + noise);
  }
  const variance = sd ** 2;
  // Of a lognormal of the median at the start: Johnson, Kotz, Balakrishnan (1994), chapter 14.
  const noiseVariance = raw ? 2.1 ** 2 * Math.exp(variance) * Math.expm1(variance) : variance;
  return { samples, level, noiseVariance };
}
