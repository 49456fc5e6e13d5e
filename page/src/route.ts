// What is shown, as it is kept in the address: #user=Ada&item=gouda&after=nappies

export interface Route {
  user: string;
  // The item whose reasons are shown; the first of the list if it is empty.
  item: string;
  // The item that the user is supposed to choose now; none if it is empty.
  after: string;
}

export function read(hash: string): Route {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  // As they are, however long: a part of an id is another user.
  return { user: given.get("user") ?? "", item: given.get("item") ?? "", after: given.get("after") ?? "" };
}

export function write(route: Route): string {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(route) as [string, string][]) if (value) parts.set(name, value);
  return `#${parts.toString()}`;
}
