import { expect, test } from "vitest";
import { read, write } from "../src/route";

test("what is shown comes back from the address", () => {
  const route = { user: "Ada & <b>", item: "rye bread", after: "a/b#c" };
  expect(read(write(route))).toEqual(route);
  expect(write({ user: "Ada", item: "", after: "" })).toBe("#user=Ada");
});

test("anything else in an address shows nothing", () => {
  expect(read("#x=1&&=")).toEqual({ user: "", item: "", after: "" });
});
