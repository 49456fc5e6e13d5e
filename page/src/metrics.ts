// The text of /metrics, as far as the page shows it.

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export function parse(text: string): Sample[] {
  const found: Sample[] = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels: Record<string, string> = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
      if (name !== undefined && value !== undefined) labels[name] = value;
    found.push({ name: match[1] ?? "", labels, value: Number(match[3]) });
  }
  return found;
}

export function total(samples: Sample[], name: string, labels: Record<string, string> = {}): number {
  return samples
    .filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value))
    .reduce((sum, one) => sum + one.value, 0);
}

// The upper end of the bucket in which a share of the requests of a route lies; null without requests.
export function quantile(samples: Sample[], route: string, share: number): number | null {
  const buckets = new Map<number, number>();
  for (const one of samples)
    if (one.name === "lifelong_request_seconds_bucket" && one.labels.route === route) {
      const end = one.labels.le === "+Inf" ? Infinity : Number(one.labels.le);
      buckets.set(end, (buckets.get(end) ?? 0) + one.value);
    }
  const ordered = [...buckets].sort(([a], [b]) => a - b);
  const all = ordered.at(-1)?.[1] ?? 0;
  if (!all) return null;
  return ordered.find(([, count]) => count >= share * all)?.[0] ?? null;
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
