// Where the events of a history lie on a drawing: windows, ticks, gaps, nearest events. No canvas in here.

export interface View {
  from: number;
  to: number;
}

export interface Tick {
  at: number;
  label: string;
}

export interface Gap {
  from: number;
  to: number;
}

// The first place whose value is not below the wanted one.
export function lowerBound(sorted: ArrayLike<number>, wanted: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] ?? 0) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function nearest(sorted: ArrayLike<number>, wanted: number): number {
  if (!sorted.length) return -1;
  const at = lowerBound(sorted, wanted);
  if (at === 0) return 0;
  if (at === sorted.length) return at - 1;
  return wanted - (sorted[at - 1] ?? 0) <= (sorted[at] ?? 0) - wanted ? at - 1 : at;
}

export function whole(sorted: ArrayLike<number>): View {
  if (!sorted.length) return { from: 0, to: 1 };
  const first = sorted[0] ?? 0;
  const last = sorted[sorted.length - 1] ?? 0;
  const margin = Math.max((last - first) * 0.02, 0.5);
  return { from: first - margin, to: last + margin };
}

export function zoomed(view: View, factor: number, around: number, all: View, least: number): View {
  const width = Math.min(Math.max((view.to - view.from) * factor, least), all.to - all.from);
  const share = (around - view.from) / (view.to - view.from);
  return moved({ from: around - share * width, to: around + (1 - share) * width }, 0, all);
}

// Moved by a distance, but not beyond the ends.
export function moved(view: View, distance: number, all: View): View {
  const width = view.to - view.from;
  const from = Math.min(Math.max(view.from + distance, all.from), all.to - width);
  return { from, to: from + width };
}

// Long pauses: of 5 % of the whole and 10 times the usual distance at least.
export function gaps(sorted: ArrayLike<number>): Gap[] {
  const size = sorted.length;
  if (size < 3) return [];
  const distances = new Float64Array(size - 1);
  for (let at = 1; at < size; at++) distances[at - 1] = (sorted[at] ?? 0) - (sorted[at - 1] ?? 0);
  const positive = distances.filter((distance) => distance > 0).sort();
  const usual = positive[positive.length >> 1] ?? 0;
  const least = Math.max(((sorted[size - 1] ?? 0) - (sorted[0] ?? 0)) * 0.05, usual * 10);
  const found: Gap[] = [];
  distances.forEach((distance, at) => {
    if (distance > least) found.push({ from: sorted[at] ?? 0, to: sorted[at + 1] ?? 0 });
  });
  return found;
}

const STEPS = [1, 5, 15, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600];
const MONTHS = [1, 2, 3, 6, 12, 24, 60, 120];
const MONTH = 2_629_800;

export function timeTicks(view: View, most: number): Tick[] {
  const wanted = (view.to - view.from) / Math.max(most, 1);
  const step = STEPS.find((size) => size >= wanted);
  if (step !== undefined) {
    const style: Intl.DateTimeFormatOptions =
      step >= 86_400 ? { day: "numeric", month: "short" } : { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
    return plainTicks(view, step).map((at) => ({ at, label: format(at, style) }));
  }
  const months = MONTHS.find((size) => size * MONTH >= wanted) ?? 240;
  const first = new Date(view.from * 1000);
  const found: Tick[] = [];
  let month = Math.ceil((first.getUTCFullYear() * 12 + first.getUTCMonth()) / months) * months;
  for (;;) {
    const at = Date.UTC(Math.floor(month / 12), month % 12, 1) / 1000;
    if (at > view.to) return found;
    const style: Intl.DateTimeFormatOptions = months >= 12 ? { year: "numeric" } : { month: "short", year: "numeric" };
    if (at >= view.from) found.push({ at, label: format(at, style) });
    month += months;
  }
}

export function numberTicks(view: View, most: number): Tick[] {
  const wanted = (view.to - view.from) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(Math.max(wanted, 1)));
  const step = [1, 2, 5, 10].map((size) => size * power).find((size) => size >= wanted) ?? 10 * power;
  return plainTicks(view, step).map((at) => ({ at, label: at.toLocaleString("en") }));
}

function plainTicks(view: View, step: number): number[] {
  const found: number[] = [];
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) found.push(at);
  return found;
}

function format(at: number, style: Intl.DateTimeFormatOptions): string {
  return new Date(at * 1000).toLocaleString("en-GB", { ...style, timeZone: "UTC" });
}
