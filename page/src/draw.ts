// The drawing of a history on a canvas.

import { binned } from "./lanes";
import type { Lanes } from "./lanes";
import { lowerBound } from "./scale";
import type { Gap, Tick, View } from "./scale";

export const LANE = 20;
export const AXIS = 26;

export interface Drawing {
  x: Float64Array;
  lanes: Lanes;
  gaps: Gap[];
  gapLabel: (gap: Gap) => string;
  ticks: Tick[];
  view: View;
  // The events that matter for the candidate, for the first row; none without a candidate.
  marked: Float64Array | null;
  selected: number;
}

export interface Colours {
  text: string;
  soft: string;
  line: string;
  accent: string;
  lanes: string[];
}

export function colours(element: HTMLElement): Colours {
  const style = getComputedStyle(element);
  const of = (name: string) => style.getPropertyValue(name).trim();
  return {
    text: of("--text"), soft: of("--soft"), line: of("--line"), accent: of("--accent"),
    lanes: Array.from({ length: 10 }, (_, at) => of(`--lane-${at}`)),
  };
}

export function draw(canvas: HTMLCanvasElement, drawing: Drawing, look: Colours): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  const perPixel = (drawing.view.to - drawing.view.from) / width;
  const pixel = (at: number) => (at - drawing.view.from) / perPixel;
  const top = drawing.marked ? LANE : 0;
  const bottom = height - AXIS;
  grid(context, drawing, look, pixel, width, bottom);
  pauses(context, drawing, look, pixel, width, bottom);
  if (drawing.marked) marks(context, drawing.marked, look, pixel, width);
  events(context, drawing, look, perPixel, width, top);
  if (drawing.selected >= 0) {
    const at = pixel(drawing.x[drawing.selected] ?? 0);
    context.fillStyle = look.text;
    context.fillRect(Math.round(at) - 1, 0, 2, bottom);
    context.beginPath();
    context.arc(at, top + (drawing.lanes.row[drawing.selected] ?? 0) * LANE + LANE / 2, 6, 0, 2 * Math.PI);
    context.lineWidth = 2;
    context.strokeStyle = look.text;
    context.stroke();
  }
}

function grid(
  context: CanvasRenderingContext2D, drawing: Drawing, look: Colours, pixel: (at: number) => number, width: number, bottom: number,
) {
  context.lineWidth = 1;
  context.strokeStyle = look.line;
  context.fillStyle = look.soft;
  for (let y = LANE; y <= bottom; y += LANE) line(context, 0, y - 0.5, width, y - 0.5);
  for (const tick of drawing.ticks) {
    const at = Math.round(pixel(tick.at)) + 0.5;
    line(context, at, 0, at, bottom + 5);
    const half = context.measureText(tick.label).width / 2;
    if (at - half >= 0 && at + half <= width) context.fillText(tick.label, at - half, bottom + 19);
  }
}

function line(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

// Hatched, with the length in words where there is room.
function pauses(
  context: CanvasRenderingContext2D, drawing: Drawing, look: Colours, pixel: (at: number) => number, width: number, bottom: number,
) {
  for (const gap of drawing.gaps) {
    const from = Math.max(0, pixel(gap.from) + 3);
    const to = Math.min(width, pixel(gap.to) - 3);
    if (to - from < 4) continue;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, bottom);
    context.clip();
    context.strokeStyle = look.line;
    for (let x = from - bottom; x < to; x += 9) line(context, x, bottom, x + bottom, 0);
    context.restore();
    const label = drawing.gapLabel(gap);
    const needed = context.measureText(label).width;
    if (needed + 8 > to - from) continue;
    const middle = (from + to) / 2;
    context.fillStyle = look.text;
    context.fillText(label, middle - needed / 2, bottom / 2 + 4);
  }
}

function marks(
  context: CanvasRenderingContext2D, marked: Float64Array, look: Colours, pixel: (at: number) => number, width: number,
) {
  context.fillStyle = look.accent;
  for (const at of marked) {
    const x = pixel(at);
    if (x < -4 || x > width + 4) continue;
    context.beginPath();
    context.moveTo(x, 5);
    context.lineTo(x + 5, LANE - 6);
    context.lineTo(x - 5, LANE - 6);
    context.fill();
  }
}

function events(
  context: CanvasRenderingContext2D, drawing: Drawing, look: Colours, perPixel: number, width: number, top: number,
) {
  const { x, lanes, view } = drawing;
  const first = lowerBound(x, view.from);
  const last = lowerBound(x, view.to);
  const rows = lanes.labels.length;
  const columns = Math.max(1, Math.ceil(width));
  const counts = binned(x, lanes.row, first, last, view.from, perPixel, columns, rows);
  let most = 1;
  for (const count of counts) if (count > most) most = count;
  const wide = last - first < width / 3 ? 4 : last - first < width * 2 ? 2 : 1;
  for (let row = 0; row < rows; row++) {
    context.fillStyle = look.lanes[row] ?? look.soft;
    for (let pixel = 0; pixel < columns; pixel++) {
      const count = counts[row * columns + pixel] ?? 0;
      if (!count) continue;
      // Many events on one pixel make a taller mark.
      const tall = (LANE - 6) * (most === 1 ? 1 : 0.45 + 0.55 * (Math.log(count + 1) / Math.log(most + 1)));
      context.fillRect(pixel - wide / 2, top + row * LANE + LANE - 3 - tall, wide, tall);
    }
  }
}
