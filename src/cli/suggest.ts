// "Did you mean": Jaro similarity, the measure clap 4.5 uses, so that the same slips get the same tips.
// Source: M. A. Jaro, Advances in record linkage methodology, 1989.

/** Similarity below or at which nothing is suggested; clap's value. */
const CONFIDENCE = 0.7;

/** Jaro similarity of two words: 0 nothing in common, 1 equal. */
export function jaro(a: string, b: string): number {
  if (a === b) return 1;
  const reach = Math.max(0, Math.floor(Math.max(a.length, b.length) / 2) - 1);
  const taken = new Set<number>();
  const matchedA: string[] = [];
  for (let i = 0; i < a.length; i++) {
    for (let j = Math.max(0, i - reach); j < Math.min(b.length, i + reach + 1); j++) {
      if (taken.has(j) || a[i] !== b[j]) continue;
      taken.add(j);
      matchedA.push(b[j] as string);
      break;
    }
  }
  const m = matchedA.length;
  if (m === 0) return 0;
  const matchedB = [...taken].sort((x, y) => x - y).map((j) => b[j]);
  const swapped = matchedA.filter((c, i) => c !== matchedB[i]).length / 2;
  return (m / a.length + m / b.length + (m - swapped) / m) / 3;
}

/** The candidates like `word`, most similar last. */
export function similar(word: string, candidates: Iterable<string>): string[] {
  const scored = [...candidates].map((text) => ({ text, score: jaro(word, text) }));
  return scored
    .filter((c) => c.score > CONFIDENCE)
    .sort((x, y) => x.score - y.score)
    .map((c) => c.text);
}
