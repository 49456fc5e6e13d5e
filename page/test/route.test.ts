import { expect, test } from "vitest";
import { MOST_ITEMS, read, write } from "../src/route";

test("what is written to the address is read from it", () => {
  const route = { user: "Ada & <b>", items: ["rye bread", "a,b", "#x"], chosen: "a,b", story: "several" as const, after: 40, other: "1f2e" };
  expect(read(write(route))).toEqual(route);
});

test("links of earlier releases are read", () => {
  expect(read("", "?user=Ada&items=rye+bread,cola")).toEqual({ user: "Ada", items: ["rye bread", "cola"], chosen: "", story: "", after: null, other: "" });
});

test("an address of anybody's making is kept within limits", () => {
  const many = Array.from({ length: 100 }, (_, at) => `item=${at}`).join("&");
  const route = read(`#user=${"x".repeat(1000)}&${many}&story=nonsense&item=0&after=-1&with=x%20y`);
  expect([route.user.length, route.items.length, route.story, route.after, route.other]).toEqual([256, MOST_ITEMS, "", null, ""]);
});
