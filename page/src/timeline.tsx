import { BINS, month } from "./rhythm";
import type { Row } from "./rhythm";

const TALL = 12;

// Rows of marks, one for each part of the time in which something happened; more events make a taller mark.
export function Timeline({ by, rows, ends, between }: { by: string; rows: Row[]; ends: string[]; between: [number, number] | null }) {
  const most = Math.max(...rows.flatMap(({ bins }) => [...bins]));
  const middle = between ? [1 / 3, 2 / 3].map((share) => month(between[0] + share * (between[1] - between[0]))) : [];
  return (
    <figure aria-label={`Events by ${by}, from ${ends[0] ?? ""} to ${ends[1] ?? ""}`}>
      <ol class="lanes">
        {rows.map(({ label, count, bins }, at) => (
          <li key={label}>
            <span class="lane"><bdi title={label}>{label}</bdi> <span class="soft">{count.toLocaleString("en")}</span></span>
            <svg class={`lane-${at}`} viewBox={`0 0 ${BINS} ${TALL}`} preserveAspectRatio="none" aria-hidden="true"><path d={marks(bins, most)} /></svg>
          </li>
        ))}
      </ol>
      <p class="axis soft" aria-hidden="true">{[ends[0], ...middle, ends[1]].map((text, at) => <span key={at}>{text}</span>)}</p>
    </figure>
  );
}

function marks(bins: Uint32Array, most: number): string {
  return [...bins].map((count, at) => {
    const tall = TALL * (most <= 1 ? 1 : 0.4 + 0.6 * (Math.log1p(count) / Math.log1p(most)));
    return count ? `M${at + 0.5},${TALL}v-${tall.toFixed(1)}` : "";
  }).join("");
}
