import { expect, test } from "vitest";
import { MOST_ITEMS, read, write } from "../src/route";

test("what is written to the address is read from it", () => {
  const route = {
    user: "Ada & <b>", items: ["rye bread", "a,b", "#x"], chosen: "a,b", story: "several" as const, other: "1f2e",
    second: "#x", text: "a&b", service: true, rows: "event type", byNumber: true, view: { from: -1.5, to: 1_700_000_000 }, event: 12,
  };
  expect(read(write(route))).toEqual(route);
});

test("an empty address stays empty", () => { expect(write(read(""))).toBe("#"); });

test("an address of anybody's making is kept within limits", () => {
  const many = Array.from({ length: 100 }, (_, at) => `item=${at}`).join("&");
  const route = read(`#user=${"x".repeat(1000)}&${many}&story=nonsense&item=0&with=x%20y&view=9..1&event=x&find=${"y".repeat(1000)}`);
  expect([route.user.length, route.items.length, route.story, route.other]).toEqual([1000, MOST_ITEMS, "", ""]);
  expect([route.view, route.event, route.text.length]).toEqual([null, 0, 256]);
  expect([read("#view=NaN..2").view, read("#view=1").view, read("#view=1..Infinity").view]).toEqual([null, null, null]);
});
