import { expect, test } from "vitest";
import { bytes, groups, kept, lately, shift, within } from "../src/figures";
import { middle, parse, quantileOf } from "../src/metrics";

const at = (seconds: number, text: string) => ({ at: seconds, samples: parse(text) });
const scores = (...counts: number[]) =>
  counts.map((count, place) => `lifelong_scores_bucket{artifact="a",le="${["-1.0", "0.0", "1.0", "+Inf"][place] ?? ""}"} ${count}`).join("\n");
const found = (text: string, title: string, recent = "") => {
  const window = recent ? lately([at(0, ""), at(10, recent)]) : null;
  const group = groups(parse(text), window, 1000).find((one) => one.title === title);
  return { note: group?.note ?? "", figures: Object.fromEntries((group?.figures ?? []).map(({ label, value, bad }) => [label, bad ? `! ${value}` : value])) };
};

test("quantiles are upper ends of buckets, the middle lies in one", () => {
  const samples = parse(scores(0, 10, 20, 20));
  expect(quantileOf(samples, "lifelong_scores", 0.5)).toBe(0);
  expect(middle(samples, "lifelong_scores")).toBe(0);
  expect(middle(parse(scores(0, 0, 20, 20)), "lifelong_scores")).toBe(0.5);
  expect(middle(parse(scores(0, 0, 0, 20)), "lifelong_scores")).toBe(1);
  expect(middle([], "lifelong_scores")).toBe(null);
});

test("readings of an earlier run of the service and of long ago are left out", () => {
  const one = at(0, "lifelong_requests_total 10"), two = at(100, "lifelong_requests_total 30"), three = at(301, "lifelong_requests_total 31");
  expect(kept([one, two], three)).toEqual([two, three]);
  expect(kept([one, two], at(105, "lifelong_requests_total 2"))).toHaveLength(1);
  expect(lately([one])).toBe(null);
  expect(lately([one, two])).toMatchObject({ seconds: 100, samples: [{ value: 20 }] });
});

test("a service that gives nothing says so in words", () => {
  expect(found("", "What runs").note).toBe("The service gives no version.");
  expect(found("", "Events").note).toContain("No event was written");
  expect(found("", "Scores").note).toContain("Nothing was scored");
  expect(found("", "Topic").note).toBe("This service follows no topic.");
  expect(found("", "Store").note).toContain("gives no figures");
  expect(found("", "Load").figures["Requests a second"]).toBe("reading …");
});

test("the build, the processes and the epoch are named", () => {
  const build = (pid: number) => `lifelong_build_info{version="0.2",python="3.12",artifact="abc",model="tally",pid="${pid}"} 1.0\nprocess_start_time_seconds{pid="${pid}"} ${400 + pid}\nlifelong_artifact_list_epoch{pid="${pid}"} 3`;
  expect(found(`${build(1)}\n${build(2)}`, "What runs").figures).toEqual({
    "lifelong": "0.2", "Python": "3.12", "Served artifact": "abc (tally)", "Changes of the artifact list": "3", "Processes": "2", "Started": "9 minutes ago",
  });
});

test("load, lag and a store that stops writes are marked", () => {
  const shed = "lifelong_shed_requests_total{by=\"reads\"} 5";
  expect(found(shed, "Load", shed).figures["Refused under load"]).toBe("! 5, 5 lately");
  const topic = "lifelong_stream_up 0.0\nlifelong_stream_lag{partition=\"0\"} 5\nlifelong_stream_lag{partition=\"1\"} 7";
  expect(found(topic, "Topic").figures).toMatchObject({ Followed: "! no: the log says why", Behind: "12 messages in 2 partitions" });
  expect(found("lifelong_stream_up 1.0", "Topic").note).toContain("not known yet");
  const store = "lifelong_store_bytes 2.5e+06\nlifelong_store_writes_stopped 1\nlifelong_store_background_errors 0";
  expect(found(store, "Store").figures).toMatchObject({
    "Tables on the disk": "2.5 MB", "Writes": "! stopped: they wait for compactions", "Failed flushes and compactions": "none",
  });
});

test("drift is the share of scores that lie elsewhere, and takes enough of them", () => {
  expect(shift(parse(scores(0, 300, 600, 600)), parse(scores(0, 0, 300, 300)), { artifact: "a" })).toBe(1);
  expect(shift(parse(scores(0, 300, 600, 600)), parse(scores(0, 150, 300, 300)), { artifact: "a" })).toBe(0);
  const head = "lifelong_build_info{artifact=\"a\"} 1.0\nlifelong_candidates_total 1200\nlifelong_unknown_items_total 600\n";
  const now = `${head}lifelong_scores_count{artifact="a"} 600\n${scores(0, 300, 600, 600)}`;
  const after = `lifelong_scores_count{artifact="a"} 300\n${scores(0, 0, 300, 300)}`;
  expect(found(now, "Scores").note).toContain("not known yet");
  expect(found(now, "Scores", after).figures).toMatchObject({
    "Drift of scores": "! 100 %", "Middle score lately": "+0.50", "Middle score since the start": "0.00", "Of items unknown to the model": "! 50 %",
  });
});

test("times and sizes are words", () => {
  expect([within(null), within(0.005), within(2), within(Infinity)]).toEqual(["no data", "5 ms", "2 s", "more than 5 s"]);
  expect([bytes(0), bytes(999), bytes(12_345), bytes(3.2e9)]).toEqual(["0 bytes", "999 bytes", "12.3 kB", "3.2 GB"]);
});
