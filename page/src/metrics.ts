// The text of /metrics, as far as the page shows it.

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

type Labels = Record<string, string>;

export function parse(text: string): Sample[] {
  const found: Sample[] = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels: Labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
      if (name !== undefined && value !== undefined) labels[name] = value;
    found.push({ name: match[1] ?? "", labels, value: Number(match[3]) });
  }
  return found;
}

export function values(samples: Sample[], name: string, labels: Labels = {}): Sample[] {
  return samples.filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value));
}

export function has(samples: Sample[], name: string): boolean {
  return samples.some((one) => one.name === name);
}

export function total(samples: Sample[], name: string, labels: Labels = {}): number {
  return values(samples, name, labels).reduce((sum, one) => sum + one.value, 0);
}

// The buckets of a histogram, added up over its other labels: upper end and how many lie below it, in ascending order.
function below(samples: Sample[], name: string, labels: Labels): [number, number][] {
  const found = new Map<number, number>();
  for (const { labels: own, value } of values(samples, `${name}_bucket`, labels)) {
    const end = own.le === "+Inf" ? Infinity : Number(own.le);
    found.set(end, (found.get(end) ?? 0) + value);
  }
  return [...found].sort(([a], [b]) => a - b);
}

// The upper end of the bucket in which a share of what was observed lies; null without any.
export function quantileOf(samples: Sample[], name: string, share: number, labels: Labels = {}): number | null {
  const ordered = below(samples, name, labels);
  const all = ordered.at(-1)?.[1] ?? 0;
  if (!all) return null;
  return ordered.find(([, count]) => count >= share * all)?.[0] ?? null;
}

// The value that half lies below, as if the values of a bucket lay evenly in it; an end of the buckets where it is beyond.
export function middle(samples: Sample[], name: string, labels: Labels = {}): number | null {
  const ordered = below(samples, name, labels);
  const all = ordered.at(-1)?.[1] ?? 0;
  if (!all) return null;
  const at = ordered.findIndex(([, count]) => count >= all / 2);
  const [end, count] = ordered[at] ?? [0, 0];
  const [start, less] = ordered[at - 1] ?? [end, 0];
  if (end === Infinity) return start;
  return start + (end - start) * ((all / 2 - less) / (count - less));
}

// What share of a histogram lies in each bucket.
export function shares(samples: Sample[], name: string, labels: Labels): number[] {
  const ordered = below(samples, name, labels);
  const all = Math.max(ordered.at(-1)?.[1] ?? 0, 1);
  return ordered.map(([, count], at) => (count - (ordered[at - 1]?.[1] ?? 0)) / all);
}

// What was added between two readings.
export function difference(before: Sample[], after: Sample[]): Sample[] {
  const name = (one: Sample) => one.name + JSON.stringify(one.labels);
  const earlier = new Map(before.map((one) => [name(one), one.value]));
  return after.map((one) => ({ ...one, value: one.value - (earlier.get(name(one)) ?? 0) }));
}

export function routes(samples: Sample[]): string[] {
  const found = samples.filter(({ name }) => name === "lifelong_requests_total").map(({ labels }) => labels.route ?? "");
  return [...new Set(found)].filter((route) => route.startsWith("/v1/")).sort();
}
