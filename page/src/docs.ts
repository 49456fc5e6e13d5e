// Makes the forms of the endpoints' page send requests. The key stays in its field: it is in no address and in no storage.

import { call, curl, shownAnswer } from "./try";
import type { Filled } from "./try";

const key = document.querySelector<HTMLInputElement>("#key input");

function filled(form: HTMLFormElement): Filled[] {
  return [...form.querySelectorAll<HTMLInputElement | HTMLTextAreaElement>("[data-in]")].map((field) => ({
    name: field.name,
    place: field.dataset.in as Filled["place"],
    value: field.value,
    several: field.dataset.several !== undefined,
  }));
}

function element(name: string, text: string, look = ""): HTMLElement {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = look;
  return made;
}

interface Answer {
  ok: boolean;
  said: string;
  parts: HTMLElement[];
}

async function answerOf(form: HTMLFormElement): Promise<Answer> {
  const given = key?.value ?? "";
  const wanted = call(form.dataset.method ?? "GET", form.dataset.path ?? "", filled(form));
  const headers = new Headers();
  if (given) headers.set("X-API-Key", given);
  if (wanted.body !== null) headers.set("Content-Type", "application/json");
  const began = performance.now();
  const response = await fetch(wanted.address, { method: wanted.method, headers, body: wanted.body });
  const text = await response.text();
  const took = Math.round(performance.now() - began);
  const hint = response.status === 401 ? ` ${key ? "Enter an API key at the top of this page." : "This service wants an API key."}` : "";
  return {
    ok: response.ok,
    said: `${response.status} ${response.statusText}, after ${took} ms.${hint}`,
    parts: [
      element("pre", shownAnswer(text) || "(an empty body)"),
      element("p", "The same call in a shell:", "small soft"),
      element("pre", curl(wanted, document.baseURI, given !== "")),
    ],
  };
}

function setUp(form: HTMLFormElement): void {
  const button = form.querySelector("button");
  const place = element("div", "", "answer");
  // Read out is how it went, and not the whole answer.
  const status = element("p", "");
  status.setAttribute("role", "status");
  form.append(status, place);
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!button || button.disabled) return;
    button.disabled = true;
    status.textContent = "Asking …";
    status.className = "";
    place.replaceChildren();
    void answerOf(form)
      .catch((error: unknown): Answer => ({ ok: false, said: error instanceof TypeError ? "The service does not answer." : error instanceof Error ? error.message : String(error), parts: [] }))
      .then(({ ok, said, parts }) => {
        status.textContent = said;
        status.className = ok ? "" : "problem";
        place.replaceChildren(...parts);
        button.disabled = false;
        // A disabled button loses the focus.
        if (document.activeElement === document.body) button.focus();
      });
  });
}

document.querySelector<HTMLFormElement>("#key")?.addEventListener("submit", (event) => { event.preventDefault(); });
document.querySelector("#key")?.removeAttribute("hidden");
document.querySelectorAll<HTMLFormElement>("form.try").forEach(setUp);
