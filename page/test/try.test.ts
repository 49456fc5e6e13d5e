import { expect, test } from "vitest";
import { call, curl, shownAnswer } from "../src/try";
import type { Filled } from "../src/try";

const field = (name: string, place: Filled["place"], value: string, several = false): Filled => ({ name, place, value, several });

test("an address has its parts in their places, whatever they hold", () => {
  const filled = [field("user", "path", "a/b $& é"), field("items", "query", "tea\n\n a&b \n", true), field("time", "query", ""), field("limit", "query", "5")];
  expect(call("GET", "/v1/users/{user}/features", filled)).toEqual({
    method: "GET", address: "v1/users/a%2Fb%20%24%26%20%C3%A9/features?items=tea&items=a%26b&limit=5", body: null,
  });
});

test("a body is JSON, or what is wrong with it is said", () => {
  expect(call("POST", "/v1/score", [field("", "body", '{"user": 1}')]).body).toBe('{"user": 1}');
  expect(() => call("POST", "/v1/score", [field("", "body", "{user}")])).toThrow("The body is not JSON");
});

test("the same call in a shell quotes what it holds, and does not hold the key", () => {
  const asked = call("POST", "/v1/score", [field("", "body", '{"user":\n"it\'s"}')]);
  expect(curl(asked, "http://host/prefix/docs", true)).toBe(
    `curl -X POST 'http://host/prefix/v1/score' -H "X-API-Key: $KEY" -H 'Content-Type: application/json' -d '{"user":"it'\\''s"}'`,
  );
  expect(curl(call("GET", "/healthz", []), "http://host/docs", false)).toBe("curl 'http://host/healthz'");
});

test("answers are shown in lines, and cut off where they are long", () => {
  expect(shownAnswer('{"a":1}')).toBe('{\n  "a": 1\n}');
  expect(shownAnswer("# HELP x")).toBe("# HELP x");
  expect(shownAnswer("x".repeat(50_010))).toMatch(/… and 10 more characters$/);
});
