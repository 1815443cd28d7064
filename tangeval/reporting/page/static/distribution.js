// distribution.js: what a setting makes of a step's stored logits; docs/explain.md has the same text, as a test checks.

function distribution(lesson, step, temperature, topK, topP) {
  const allowed = step.top.filter(([, , , rank]) => rank >= 0), rest = step.rest;
  if (temperature === 0) return {kept: 1, entropy: 0, tokens: allowed.slice(0, 1).map(([id]) => ({id, p: 1})), pick: allowed[0][0]};
  const at = lesson.temperatures.indexOf(temperature);
  const x = allowed.map(([, logit]) => logit / temperature), top = x[0];
  let weights = x.map(v => Math.exp(v - top));
  let kept = allowed.length + rest.count;
  let others = rest.count ? Math.exp(rest.log_sum[at] - top) : 0;       // the rest's mass on the same scale
  if (topK > 0 && topK < kept) {
    const number = x.filter(v => v >= x[topK - 1]).length;              // all that tie with the k-th
    if (topK > allowed.length || allowed[number - 1][3] !== number - 1) return null;  // the cut lies in the rest
    weights = weights.slice(0, number); kept = number; others = 0;
  }
  const sum = weights.reduce((a, b) => a + b, 0) + others;
  if (topP < 1) {
    let before = 0, number = 0;
    while (number < weights.length && before < topP * sum) before += weights[number++];
    if (others && (before < topP * sum || allowed[number - 1][3] !== number - 1)) return null;
    weights = weights.slice(0, Math.max(1, number)); kept = weights.length; others = 0;
  }
  const total = weights.reduce((a, b) => a + b, 0) + others;
  const mean = weights.reduce((a, w, i) => a + w * (x[i] - top), 0) + (others && others * (rest.mean[at] - top));
  let pick = others ? rest.pick[at] : null, best = others ? rest.score[at] : -Infinity;
  weights.forEach((_, i) => { const score = x[i] + allowed[i][2]; if (score > best) { best = score; pick = allowed[i][0]; } });
  return {kept, entropy: Math.log(total) - mean / total, pick,
          tokens: weights.map((w, i) => ({id: allowed[i][0], p: w / total})), others: others / total};
}
