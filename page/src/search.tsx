import { useEffect, useId, useRef, useState } from "preact/hooks";
import { useLoaded } from "./hooks";
import { Failure } from "./parts";

export interface Option {
  id: string;
  name: string;
  note: string;
}

// A box that looks for users or items while one types. What is not found may be taken as it was typed.
export function Search({ label, placeholder, unknown, find, onTake }: {
  label: string; placeholder: string; unknown: string; find: (text: string, signal: AbortSignal) => Promise<Option[]>; onTake: (id: string) => void;
}) {
  const [text, setText] = useState("");
  const [open, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  // Enter was pressed before the options of this text were there: they are awaited.
  const [awaited, setAwaited] = useState(false);
  const list = useId();
  const box = useRef<HTMLInputElement>(null);
  const wanted = text.trim();
  const found = useLoaded((signal) => (open ? find(wanted, signal).then((options) => ({ options, wanted })) : Promise.resolve(null)), [wanted, open], 120);
  const there = !found.loading && found.value?.wanted === wanted;
  const known = found.value?.options ?? [];
  const options = [...known];
  if (wanted && there && !options.some(({ id }) => id === wanted)) options.push({ id: wanted, name: wanted, note: unknown });
  const take = (id: string) => {
    onTake(id);
    setText("");
    setActive(-1);
    setAwaited(false);
    box.current?.focus();
    // The list would cover what one presses next.
    setOpen(false);
  };
  const takeBest = () => {
    // A part of a name means what there is, rather than something unknown of this name.
    const best = known.find(({ id }) => id === wanted) ?? options[0];
    if (best) take(best.id);
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
      if (options[active]) take(options[active].id);
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
      <input ref={box} value={text} maxLength={256} autocomplete="off" spellcheck={false} placeholder={placeholder} aria-label={label}
        role="combobox" aria-expanded={showing} aria-controls={list} aria-autocomplete="list"
        aria-activedescendant={showing && active >= 0 ? `${list}-${active}` : undefined}
        onFocus={() => { setOpen(true); }} onBlur={() => { setOpen(false); setAwaited(false); }}
        onInput={(event) => { setText(event.currentTarget.value); setOpen(true); setActive(-1); setAwaited(false); }} onKeyDown={onKeyDown} />
      <ul id={list} role="listbox" aria-label={`${label}: found`} hidden={!showing}>
        {options.map((one, at) => (
          <li key={one.id} id={`${list}-${at}`} role="option" aria-selected={at === active}
            onMouseDown={(event) => { event.preventDefault(); take(one.id); }}>
            <bdi class="word">{one.name}</bdi>
            <span class="small soft"><bdi>{one.note}</bdi></span>
          </li>
        ))}
      </ul>
      {open && found.problem ? <Failure problem={found.problem} /> : null}
    </div>
  );
}
