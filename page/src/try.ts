// A request of the endpoints' page, put together from what was filled in.

export interface Filled {
  name: string;
  place: "path" | "query" | "header" | "body";
  value: string;
  // Several values, one a line.
  several: boolean;
}

export interface Call {
  method: string;
  // Relative to the page, so that it works behind a prefix, too.
  address: string;
  body: string | null;
}

// Throws what is wrong with the body, in words.
export function call(method: string, path: string, filled: Filled[]): Call {
  let address = path.replace(/^\//, "");
  const query = new URLSearchParams();
  let body: string | null = null;
  for (const { name, place, value, several } of filled) {
    if (place === "path") address = address.replace(`{${name}}`, () => encodeURIComponent(value));
    else if (place === "body") body = compact(value);
    else if (several) for (const one of value.split("\n")) { if (one.trim()) query.append(name, one.trim()); }
    else if (value !== "") query.set(name, value);
  }
  const text = query.toString();
  return { method, address: text ? `${address}?${text}` : address, body };
}

function compact(text: string): string {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new Error(`The body is not JSON: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  return text;
}

// The same call in a shell; the key is named, and not shown.
export function curl({ method, address, body }: Call, base: string, keyed: boolean): string {
  const words = ["curl"];
  if (method !== "GET") words.push("-X", method);
  words.push(quoted(new URL(address, base).href));
  if (keyed) words.push("-H", '"X-API-Key: $KEY"');
  if (body !== null) words.push("-H", "'Content-Type: application/json'", "-d", quoted(JSON.stringify(JSON.parse(body))));
  return words.join(" ");
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

const MOST = 50_000;

// An answer as it is shown: JSON in lines, and long ones cut off.
export function shownAnswer(text: string): string {
  let found = text;
  try {
    found = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not every answer is JSON.
  }
  return found.length > MOST ? `${found.slice(0, MOST)}\n… and ${(found.length - MOST).toLocaleString("en")} more characters` : found;
}
