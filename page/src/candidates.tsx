import { useEffect, useId, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { ordered } from "./changes";
import type { Order } from "./changes";
import { useLoaded } from "./hooks";
import { Bar, Effect, Failure, Scroll } from "./parts";
import type { Candidate, CountedValue, Explanation, ListedItem } from "./types";
import { ago, counted, eventsAgo, fieldWords, ownWords, plural, signed } from "./words";

export function Search({ taken, label, onItem }: { taken: string[]; label: string; onItem: (item: string) => void }) {
  const [text, setText] = useState("");
  const [open, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  const list = useId();
  const box = useRef<HTMLInputElement>(null);
  const wanted = text.trim();
  const found = useLoaded(
    (signal) => (open ? api.items(wanted, 12, signal).then(({ items }) => ({ items, wanted })) : Promise.resolve(null)), [wanted, open], 120,
  );
  // Enter was pressed before the items of this text were there: they are awaited.
  const [awaited, setAwaited] = useState(false);
  const there = !found.loading && found.value?.wanted === wanted;
  const known = (found.value?.items ?? []).filter(({ item }) => !taken.includes(item));
  const options: (ListedItem & { unknown?: boolean })[] = [...known];
  if (wanted && there && !(found.value?.items ?? []).some(({ item }) => item === wanted) && !taken.includes(wanted))
    options.push({ item: wanted, fields: {}, unknown: true });
  const take = (item: string) => {
    onItem(item);
    setText("");
    setActive(-1);
    setAwaited(false);
    box.current?.focus();
    // The list would cover what one presses next.
    setOpen(false);
  };
  const takeBest = () => {
    // A part of an id means an item that there is, rather than an unknown one of this name.
    const best = known.find(({ item }) => item === wanted) ?? options[0];
    if (best) take(best.item);
    else setAwaited(false);
  };
  useEffect(() => {
    if (awaited && there) takeBest();
    else if (awaited && found.problem) setAwaited(false);
  }, [awaited, there, found.problem]);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      setOpen(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (options.length) setActive((active + step + options.length + (active < 0 && step < 0 ? 1 : 0)) % options.length);
    } else if (event.key === "Enter" && open) {
      if (options[active]) take(options[active].item);
      else if (wanted && there) takeBest();
      else if (wanted) setAwaited(true);
      else return;
      event.preventDefault();
    } else if (event.key === "Escape") {
      setOpen(false);
      setAwaited(false);
    }
  };
  const showing = open && options.length > 0;
  return (
    <div class="combo">
      <label>{label}
        <input ref={box} value={text} maxLength={256} autocomplete="off" spellcheck={false} placeholder="part of an item’s id"
          role="combobox" aria-expanded={showing} aria-controls={list} aria-autocomplete="list"
          aria-activedescendant={showing && active >= 0 ? `${list}-${active}` : undefined}
          onFocus={() => { setOpen(true); }} onBlur={() => { setOpen(false); setAwaited(false); }}
          onInput={(event) => { setText(event.currentTarget.value); setOpen(true); setActive(-1); setAwaited(false); }} onKeyDown={onKeyDown} />
      </label>
      <ul id={list} role="listbox" aria-label="Items found" hidden={!showing}>
        {options.map((one, at) => (
          <li key={one.item} id={`${list}-${at}`} role="option" aria-selected={at === active}
            onMouseDown={(event) => { event.preventDefault(); take(one.item); }}>
            <bdi class="word">{one.item}</bdi>
            <span class="small soft">{one.unknown ? "not in the catalogue" : fieldWords(one.fields)}</span>
          </li>
        ))}
      </ul>
      {open && found.problem ? <Failure problem={found.problem} /> : null}
    </div>
  );
}

export function Candidates({ explanation, chosen, own, order, onChoose, onRemove }: {
  explanation: Explanation; chosen: string; own: boolean; order: Order; onChoose: (item: string) => void; onRemove: (item: string) => void;
}) {
  const ranked = ordered(explanation, order);
  const popular = !own && ranked.some(({ popularity }) => popularity !== null);
  const most = largestEffect(explanation.candidates);
  const probabilities = ranked.some(({ probability }) => probability !== null);
  const counted = ranked.some((one) => one.counted);
  const least = Math.min(0, ...ranked.map(({ score }) => score));
  const highest = Math.max(0, ...ranked.map(({ score }) => score));
  return (
    <>
      <Scroll label={"Candidates and scores"}>
        <table class="candidates">
          <thead><tr>
            <th scope="col" class="number">Rank</th><th scope="col">Item</th><th scope="col" class="number">Score</th>
            {popular ? <th scope="col" class="number extra">In the list</th> : null}
            {probabilities ? <th scope="col" class="number">Probability</th> : null}
            <th scope="col" class="wide">{counted ? "Parts" : <span class="hidden">as a bar</span>}</th>
            {own ? <th scope="col"><span class="hidden">Remove</span></th> : null}
          </tr></thead>
          <tbody>
            {ranked.map((one, at) => (
              <tr key={one.item} class={one.item === chosen ? "chosen" : ""}>
                <td class="number">{at + 1}</td>
                <th scope="row">
                  <button type="button" class="link" aria-pressed={one.item === chosen} onClick={() => { onChoose(one.item); }}><bdi class="word">{one.item}</bdi></button>
                  {one.known_item ? <bdi class="word small soft below">{fieldWords(one.fields)}</bdi> : <span class="tag">unknown item</span>}
                </th>
                <td class="number">{one.score.toFixed(3)}</td>
                {popular ? <td class="number extra">{order(one).toFixed(3)}</td> : null}
                {probabilities ? <td class="number">{one.probability?.toFixed(4) ?? "–"}</td> : null}
                <td class="wide">
                  {one.counted ? parts(one).map(([name, value]) => (
                    <span class="part" key={name} title={`${name} ${signed(value)}`}><Effect value={value} most={most} /><span class="hidden">{name} {signed(value)}, </span></span>
                  )) : <Bar share={highest > least ? (one.score - least) / (highest - least) : 0} />}
                </td>
                {own ? <td><button type="button" class="icon" onClick={() => { onRemove(one.item); }} aria-label={`Remove ${one.item}`}>×</button></td> : null}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <PartsNote explanation={explanation} />
      {ranked[0]?.reason ? <p class="small soft">No probability: {ranked[0].reason}</p> : null}
    </>
  );
}

export function PartsNote({ explanation }: { explanation: Explanation }) {
  const names = parts(explanation.candidates.find((one) => one.counted)).map(([name]) => name);
  return names.length ? <p class="small soft">Each small bar is a part: {names.join(", ")}. To the right it raises the score, to the left it lowers it.</p> : null;
}

export function parts(candidate: Candidate | undefined): [string, number][] {
  const counted = candidate?.counted;
  if (!counted) return [];
  const values = counted.values.map(({ field, effect }): [string, number] => [field, effect]);
  const affinities = counted.affinities.map(({ field, effect }): [string, number] => [`${field} by other users`, effect]);
  const slots: [string, number][] = counted.slots_effect === null ? [] : [["slots", counted.slots_effect]];
  return [...values, ...affinities, ...slots];
}

export function largestEffect(candidates: Candidate[]): number {
  return Math.max(1e-9, ...candidates.flatMap((one) => parts(one).map(([, value]) => Math.abs(value))));
}

// `most` is the effect that fills a bar: the largest of two candidates that are compared.
export function Why({ explanation, candidate, most = largestEffect([candidate]) }: { explanation: Explanation; candidate: Candidate; most?: number }) {
  return (
    <>
      {candidate.counted ? (
        <Scroll label={"Parts of the score"}>
          <table>
            <caption>What the memory has counted, and what each count adds to the score</caption>
            <thead><tr><th scope="col">Part</th><th scope="col">Met</th><th scope="col" class="number">Effect</th><th scope="col" class="wide extra"><span class="hidden">as a bar</span></th></tr></thead>
            <tbody>
              {candidate.counted.values.map((value) => (
                <tr key={value.field}>
                  <th scope="row">{value.field} <bdi class="word soft">{ownWords(value)}</bdi></th><td>{met(value)}{value.events_ago === null ? "" : `, ${value.events_ago === 1 ? "at the last event" : eventsAgo(value.events_ago)}`}</td>
                  <td class="number">{signed(value.effect)}</td><td class="wide extra"><Effect value={value.effect} most={most} /></td>
                </tr>
              ))}
              {candidate.counted.affinities.map((one) => (
                <tr key={`${one.field} by others`}>
                  <th scope="row">{one.field} by other users</th><td>fit {one.cosine.toFixed(2)}, lately {one.cosine_lately.toFixed(2)}</td>
                  <td class="number">{signed(one.effect)}</td><td class="wide extra"><Effect value={one.effect} most={most} /></td>
                </tr>
              ))}
              {candidate.counted.slots_effect !== null ? (
                <tr><th scope="row">slots</th><td>–</td><td class="number">{signed(candidate.counted.slots_effect)}</td><td class="wide extra"><Effect value={candidate.counted.slots_effect} most={most} /></td></tr>
              ) : null}
            </tbody>
          </table>
        </Scroll>
      ) : null}
      {candidate.counted?.affinities.length ? <p class="small soft">“By other users”: how well its value fits what she met, from −1 to 1, by who else met both.</p> : null}
      {explanation.attention_over === null ? (candidate.counted ? null : <p class="soft">{explanation.attention_note}.</p>) : (
        <>
          <h3>{explanation.attention_over === "slots" ? "Attention over time scales" : "Attention over events"}</h3>
          <p class="small soft">Shown are {explanation.attention_note}.</p>
          {explanation.attention_over === "slots" ? <SlotAttention explanation={explanation} candidate={candidate} /> : <EventAttention candidate={candidate} />}
        </>
      )}
    </>
  );
}

function met({ state, times, precision }: CountedValue): string {
  if (state === "counted") return times === 1 ? "once" : times === 2 ? "twice" : `${counted(times, precision)} times`;
  return { new: "never or long ago", unknown: "not counted" }[state];
}

function SlotAttention({ explanation, candidate }: { explanation: Explanation; candidate: Candidate }) {
  return (
    <ul class="weights">
      {candidate.slots.map((part, at) => {
        const slot = explanation.slots[at];
        return (
          <li key={at}>
            <div class="head"><span>Slot {part.slot + 1}: {slot?.written}{slot?.empty ? "; still empty" : ""}</span><span class="number">{Number(part.attention.toPrecision(3))}</span></div>
            <Bar share={Math.abs(part.attention)} />
            <ul class="small">
              {part.related.slice(0, 3).map((event, place) => (
                <li key={place}><bdi class="word">{event.item || "unknown item"}</bdi> · same {event.same.join(", ")} · {ago(event.seconds_ago)}</li>
              ))}
            </ul>
          </li>
        );
      })}
    </ul>
  );
}

function EventAttention({ candidate }: { candidate: Candidate }) {
  if (!candidate.events.length) return <p class="soft">No event has a weight.</p>;
  const most = Math.abs(candidate.events[0]?.attention ?? 1);
  return (
    <ul class="weights">
      {candidate.events.map((event) => (
        <li key={event.position}>
          <div class="head"><span>No. {event.position} · <bdi class="word">{event.item || "unknown item"}</bdi> · {ago(event.seconds_ago)}</span><span class="number">{Number(event.attention.toPrecision(3))}</span></div>
          <Bar share={Math.abs(event.attention) / most} />
        </li>
      ))}
      {candidate.rest?.events ? <li>{plural(candidate.rest.events, "other event")} together: {Number(candidate.rest.attention.toPrecision(3))}</li> : null}
    </ul>
  );
}
