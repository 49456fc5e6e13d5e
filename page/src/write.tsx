import { useRef, useState } from "preact/hooks";
import * as api from "./api";
import { Search } from "./candidates";
import type { Order, Snapshot } from "./changes";
import { Difference } from "./difference";
import { problemOf } from "./hooks";
import { Failure } from "./parts";
import type { Model, Problem } from "./types";
import { plural } from "./words";

// Writes an event and says what became of scores, ranks and counters.
export function Write({ user, model, snapshot, order, read, onWritten }: {
  user: string; model: Model; snapshot: Snapshot | null; order: Order; read: () => Promise<Snapshot>; onWritten: () => void;
}) {
  const [item, setItem] = useState("");
  const [type, setType] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [outcome, setOutcome] = useState<{ item: string; note: string; before: Snapshot; after: Snapshot } | null>(null);
  // Kept until the service has answered: a second attempt writes the same event, which counts once.
  const attempt = useRef<{ item: string; type: string; before: Snapshot; event: Record<string, unknown> } | null>(null);
  const eventType = type || (model.event_types[0] ?? "");

  async function submit() {
    if (!item || busy) return;
    setBusy(true);
    setProblem(null);
    try {
      if (attempt.current?.item !== item || attempt.current.type !== eventType) {
        const before = await read();
        const time = model.time_unit === "seconds" ? Math.floor(Date.now() / 1000) : (before.explanation.last_time ?? 0) + 1;
        const id = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
        attempt.current = { item, type: eventType, before, event: { user, item, time, event_id: id, ...(eventType ? { event_type: eventType } : {}) } };
      }
      const { before, event: wanted } = attempt.current;
      const reply = await api.addEvent(wanted);
      const after = await read();
      attempt.current = null;
      setOutcome({ item, note: reply.note ?? "", before, after });
      onWritten();
    } catch (error) {
      setProblem(problemOf(error));
    } finally {
      setBusy(false);
    }
  }

  return (
    <>
      <p class="small soft">The event is written to <bdi class="word">{user}</bdi>’s memory and stays there.</p>
      <form class="write" onSubmit={(event) => { event.preventDefault(); void submit(); }}>
        <Search taken={[]} label="Item" onItem={setItem} />
        {model.event_types.length ? (
          <label>Type
            <select value={eventType} onChange={(event) => { setType(event.currentTarget.value); }}>
              {model.event_types.map((name) => <option key={name} value={name}>{name}</option>)}
            </select>
          </label>
        ) : null}
        <button type="submit" class="primary" disabled={!item || busy || snapshot === null}>
          {item ? <>Write <bdi class="word">{item}</bdi></> : "Choose an item first"}
        </button>
      </form>
      {problem ? <Failure problem={problem} again={() => { void submit(); }} /> : null}
      <div aria-live="polite">{outcome ? <Outcome {...outcome} order={order} /> : null}</div>
    </>
  );
}

function Outcome({ item, note, before, after, order }: { item: string; note: string; before: Snapshot; after: Snapshot; order: Order }) {
  return (
    <>
      <p><strong>Written:</strong> <bdi class="word">{item}</bdi>. The memory has {plural(after.explanation.count, "event")} now, {before.explanation.count.toLocaleString("en")} before. {note}</p>
      <Difference before={before} after={after} chosen={item} order={order} />
    </>
  );
}
