// Every number that the explorer shows, from its settings alone.

import { debiasedEma, ema, kalman, movingAverage, reached, shareWithinTimeConstant } from "./estimators.js";
import { stream } from "./streams.js";

export const NAMES = ["ema", "debiased_ema", "kalman", "moving_average"];

/** Shares of a step that an exponential reaches after one, two and three time constants. */
export const MARKS = { 63: -Math.expm1(-1), 86: -Math.expm1(-2), 95: -Math.expm1(-3) };

const [LOWEST, BINS] = [1e-5, 400];

/** Estimators by name; none where a setting is outside of what it takes. */
function estimators({ beta, ratio, window }, r) {
  return {
    ema: ema(beta),
    debiased_ema: beta > 0 ? debiasedEma(beta) : null,
    kalman: kalman(ratio * r, r),
    moving_average: movingAverage(window),
  };
}

function decibels(power) {
  return 10 * Math.log10(power);
}

/** Read-outs of one estimator: what its row of the table says. */
function readout(estimator, frequency) {
  const { re, im } = estimator.response(frequency);
  return {
    timeConstant: estimator.timeConstant,
    halfLife: estimator.halfLife,
    cutoff: estimator.cutoff,
    noiseGain: estimator.noiseGain,
    noiseGainDb: decibels(estimator.noiseGain),
    groupDelay: estimator.groupDelay,
    attenuationDb: -decibels(re * re + im * im),
    stateBytes: estimator.stateBytes,
    effectiveWindow: estimator.effectiveWindow,
    shareWithin: shareWithinTimeConstant(estimator),
    to63: reached(estimator, MARKS[63]),
    to86: reached(estimator, MARKS[86]),
    to95: reached(estimator, MARKS[95]),
  };
}

/** Ages at which responses in time are drawn: all of a few, else evenly spread and both sides of the window's end. */
function agesUpTo(last, window) {
  if (last <= BINS) return Array.from({ length: last + 1 }, (_, age) => age);
  const ages = new Set([window - 1, window]);
  for (let i = 0; i <= BINS; i++) ages.add(Math.round((last * i) / BINS));
  return [...ages].filter((age) => age <= last).sort((a, b) => a - b);
}

/** Frequencies in the middle of logarithmic bins, and the magnitude's highest and lowest values within them. */
function bode(each, window) {
  const edge = (i) => LOWEST * (0.5 / LOWEST) ** (i / BINS);
  const f = Array.from({ length: BINS }, (_, i) => edge(i + 0.5));
  f.push(0.5);
  const response = map(each, (estimator) => f.map((at) => estimator.response(at)));
  const magnitude = map(response, (values) => values.map(({ re, im }) => Math.hypot(re, im)));
  const lobes = { high: [...magnitude.moving_average], low: [...magnitude.moving_average] };
  for (let i = 0; i < BINS; i++) {
    const width = edge(i + 1) - edge(i);
    if (width * window < 0.2) continue; // lobes are 1 / window wide: these are wider than a bin
    for (let j = 0; j <= 32; j++) {
      const { re, im } = each.moving_average.response(Math.min(0.5, edge(i) + (width * j) / 32));
      lobes.high[i] = Math.max(lobes.high[i], Math.hypot(re, im));
      lobes.low[i] = Math.min(lobes.low[i], Math.hypot(re, im));
    }
  }
  return { f, response, magnitude, lobes };
}

/** Root-mean-square errors in the first quarter and after it, and the band's coverage there. */
function errors({ samples, level }, out, quantile) {
  const burnIn = Math.min(1000, Math.floor(samples.length / 4));
  const rmse = (from, to) => {
    let sum = 0;
    for (let t = from; t < to; t++) sum += (out.mean[t] - level[t]) ** 2;
    return Math.sqrt(sum / (to - from));
  };
  let coverage = NaN;
  if (out.variance) {
    let inside = 0;
    for (let t = burnIn; t < samples.length; t++) {
      inside += Math.abs(out.mean[t] - level[t]) <= quantile * Math.sqrt(out.variance[t]);
    }
    coverage = inside / (samples.length - burnIn);
  }
  return { burnIn, startUpRmse: rmse(0, burnIn), rmse: rmse(burnIn, samples.length), coverage };
}

/** Apply to what there is by name; what there is not stays null. */
function map(each, make) {
  return Object.fromEntries(NAMES.map((name) => [name, each[name] ? make(each[name], name) : null]));
}

let [latest, latestKey] = [null, null];

/** The stream of these settings, drawn anew only where it is another one. */
function streamOf({ kind, domain, steps, sd, drift, height, slope, outliers, scale, seed }) {
  const of = { kind, domain, steps, sd, drift, height, slope, outliers, scale, seed };
  const key = JSON.stringify(of);
  if (key !== latestKey) [latest, latestKey] = [stream(of), key];
  return latest;
}

/** All numbers of the page. quantile: of the standard normal, for bands that hold 95 %. */
export function numbers(settings, quantile) {
  const drawn = streamOf(settings);
  const each = estimators(settings, drawn.noiseVariance);
  const visible = NAMES.filter((name) => settings.show.includes(name) && each[name]);
  const of = visible.length ? visible : NAMES.filter((name) => each[name]);
  const last = Math.max(8, ...of.map((name) => Math.ceil(each[name].extent)));
  const ages = agesUpTo(last, settings.window);
  const filtered = map(each, (estimator) => estimator.filter(drawn.samples));
  const { variance } = filtered.kalman;
  return {
    settings,
    visible,
    kalman: { q: settings.ratio * drawn.noiseVariance, r: drawn.noiseVariance },
    readouts: map(each, (estimator) => readout(estimator, settings.frequency)),
    ages,
    impulse: map(each, (estimator) => ages.map(estimator.impulse)),
    step: map(each, (estimator) => ages.map(estimator.step)),
    bode: bode(each, settings.window),
    stream: {
      ...drawn,
      mean: map(filtered, ({ mean }) => mean),
      variance,
      band: filtered.kalman.mean.reduce(
        (band, mean, t) => {
          const half = quantile * Math.sqrt(variance[t]);
          band.low.push(mean - half);
          band.high.push(mean + half);
          return band;
        },
        { low: [], high: [] },
      ),
      errors: map(filtered, (out) => errors(drawn, out, quantile)),
    },
  };
}
