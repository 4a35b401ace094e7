// The four estimators of the library: closed forms, and each recursion once. Pure functions of numbers.

/** The one line all recursions share; a gain of one forgets, even where there was no mean (NaN) before. */
function toward(mean, sample, gain) {
  return gain === 1 ? sample : mean + gain * (sample - mean);
}

/** Means, gains and, where one is stated, variances of a recursion over all samples. */
function recursed({ prior, predict, correct }, samples) {
  const mean = new Float64Array(samples.length);
  const gain = new Float64Array(samples.length);
  const variance = "variance" in prior ? new Float64Array(samples.length) : null;
  let state = prior;
  for (let t = 0; t < samples.length; t++) {
    [state, gain[t]] = correct(predict(state), samples[t]);
    mean[t] = state.mean;
    if (variance) variance[t] = state.variance;
  }
  return { mean, gain, variance };
}

/**
 * Closed forms of a filter whose gain has settled at `gain` = 1 - `beta`; both are given, for where one is small
 * the other cannot say it. H(z) = K / (1 - (1 - K) / z): Oppenheim, Schafer (2010), sections 2.4 and 5.1.
 */
function settled(gain, beta) {
  const log = beta < 0.5 ? Math.log(beta) : Math.log1p(-gain);
  return {
    steadyGain: gain,
    effectiveWindow: 1 / gain,
    timeConstant: -1 / log,
    halfLife: -Math.LN2 / log,
    groupDelay: beta / gain,
    noiseGain: gain / (1 + beta),
    cutoff: Math.asin((0.5 * gain) / Math.sqrt(beta)) / Math.PI,
    extent: -5 / log,
    impulse: (age) => gain * beta ** age,
    step: (age) => -Math.expm1((age + 1) * log),
    crossing: (share) => Math.log1p(-share) / log,
    response(f) {
      // 1 - exp(-iw) in half angles: no cancellation near zero frequency.
      const sine = Math.sin(Math.PI * f);
      const re = gain + beta * 2 * sine * sine;
      const im = beta * 2 * sine * Math.cos(Math.PI * f);
      const square = re * re + im * im;
      return { re: (gain * re) / square, im: (-gain * im) / square };
    },
  };
}

/** EMA, mean += (1 - beta) (x - mean) from `initial` on; beta in [0, 1). */
export function ema(beta, initial = 0) {
  const gain = 1 - beta;
  const steps = {
    prior: { mean: initial },
    predict: (state) => state,
    correct: (state, sample) => [{ mean: toward(state.mean, sample, gain) }, gain],
  };
  return { ...settled(gain, beta), stateBytes: 8, filter: (samples) => recursed(steps, samples) };
}

/** Bias-corrected EMA: the mean over the accumulated weight mass; beta in (0, 1). */
export function debiasedEma(beta) {
  const share = 1 - beta;
  const steps = {
    prior: { mean: NaN, weight: 0 },
    predict: ({ mean, weight }) => ({ mean, weight: beta * weight }),
    correct(state, sample) {
      const weight = state.weight + share;
      const gain = share / weight;
      return [{ mean: toward(state.mean, sample, gain), weight }, gain];
    },
  };
  return { ...settled(share, beta), stateBytes: 16, filter: (samples) => recursed(steps, samples) };
}

/** Kalman filter of a random walk of process variance q seen with measurement variance r, from a diffuse start. */
export function kalman(q, r) {
  const s = q / r;
  const gain = 2 / (1 + Math.sqrt(1 + 4 / s));
  const beta = gain > 0.5 ? gain ** 2 / s : 1 - gain;
  const steps = {
    prior: { mean: NaN, variance: Infinity },
    predict: ({ mean, variance }) => ({ mean, variance: variance + q }),
    correct(state, sample) {
      const gain = state.variance === Infinity ? 1 : state.variance / (state.variance + r);
      return [{ mean: toward(state.mean, sample, gain), variance: r * gain }, gain];
    },
  };
  return { ...settled(gain, beta), stateBytes: 16, filter: (samples) => recursed(steps, samples) };
}

/** Mean of the last `window` samples, of those there are until it is full. */
export function movingAverage(window) {
  const amplitude = (f) => Math.sin(Math.PI * f * window) / (window * Math.sin(Math.PI * f));
  return {
    steadyGain: 1 / window,
    effectiveWindow: window,
    timeConstant: window * -Math.expm1(-1),
    halfLife: 0.5 * window,
    groupDelay: 0.5 * (window - 1),
    noiseGain: 1 / window,
    cutoff: halfPower(window, amplitude),
    extent: 1.25 * window,
    stateBytes: 8 * window,
    impulse: (age) => (age < window ? 1 / window : 0),
    step: (age) => Math.min((age + 1) / window, 1),
    crossing: (share) => share * window,
    response(f) {
      if (f % 1 === 0) return { re: 1, im: 0 };
      const phase = Math.PI * f * (window - 1);
      return { re: amplitude(f) * Math.cos(phase), im: -amplitude(f) * Math.sin(phase) };
    },
    filter: (samples) => slid(window, samples),
  };
}

/** First frequency at which the window passes half the power; NaN for a window of 1, which passes everything. */
function halfPower(window, amplitude) {
  if (window === 1) return NaN;
  let [low, high] = [0, 1 / window]; // the gain falls from 1 to 0 between these
  for (let i = 0; i < 64; i++) {
    const middle = 0.5 * (low + high);
    if (amplitude(middle) ** 2 > 0.5) low = middle;
    else high = middle;
  }
  return 0.5 * (low + high);
}

/**
 * Each sum is of samples in the window alone, so that what has left it leaves no trace: the end of one block of
 * `window` samples and the beginning of the next (van Herk 1992, Pattern Recognition Letters 13).
 */
function slid(window, samples) {
  const n = samples.length;
  const [ends, mean, gain] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
  for (let t = n - 1; t >= 0; t--) {
    ends[t] = samples[t] + ((t + 1) % window === 0 || t + 1 === n ? 0 : ends[t + 1]);
  }
  let beginning = 0;
  for (let t = 0; t < n; t++) {
    beginning = samples[t] + (t % window === 0 ? 0 : beginning);
    const first = t - window + 1;
    const sum = first > 0 && first % window !== 0 ? ends[first] + beginning : beginning;
    gain[t] = 1 / Math.min(t + 1, window);
    mean[t] = sum / Math.min(t + 1, window);
  }
  return { mean, gain, variance: null };
}

/** Whole samples of a unit step until the response has reached a share of it; rounding at a mark forgiven. */
export function reached(estimator, share) {
  let count = Math.max(1, Math.ceil(estimator.crossing(share)) - 1);
  while (estimator.step(count - 1) < share * (1 - 1e-12)) count++;
  return count;
}

/** Share of the weight on samples younger than the time constant, on the newest at least. */
export function shareWithinTimeConstant(estimator) {
  return estimator.step(Math.max(1, Math.ceil(estimator.timeConstant)) - 1);
}

/** Nearest whole number, halves to the even one, as NumPy rounds. */
function rounded(value) {
  const whole = Math.floor(value);
  const above = value - whole;
  return above > 0.5 || (above === 0.5 && whole % 2 !== 0) ? whole + 1 : whole;
}

/** By which quantity two estimators can be matched, and the setting of each kind that follows from it. */
export const MATCHES = {
  noise: {
    quantity: "noiseGain",
    beta: (g) => (1 - g) / (1 + g),
    ratio: (g) => (4 * g ** 2) / (1 - g ** 2),
    window: (g) => Math.max(1, rounded(1 / g)),
  },
  lag: {
    quantity: "groupDelay",
    beta: (d) => d / (1 + d),
    ratio: (d) => 1 / (d * (1 + d)),
    window: (d) => Math.max(1, rounded(2 * d + 1)),
  },
};
