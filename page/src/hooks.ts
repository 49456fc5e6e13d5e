import { useCallback, useEffect, useState } from "preact/hooks";
import { ServiceError } from "./api";
import type { Problem } from "./types";

export interface Loaded<T> {
  value: T | null;
  problem: Problem | null;
  loading: boolean;
  // Asks once more.
  again: () => void;
}

export function problemOf(error: unknown): Problem {
  if (error instanceof ServiceError) return error.problem;
  return { found: error instanceof Error ? error.message : String(error) };
}

// Loads again when one of the keys changes; an answer that comes late to an earlier question is dropped.
export function useLoaded<T>(load: (signal: AbortSignal) => Promise<T | null>, keys: unknown[], wait = 0): Loaded<T> {
  const [state, setState] = useState<Omit<Loaded<T>, "again">>({ value: null, problem: null, loading: true });
  const [tries, setTries] = useState(0);
  const again = useCallback(() => { setTries((before) => before + 1); }, []);
  useEffect(() => {
    const abort = new AbortController();
    setState((before) => ({ ...before, loading: true }));
    const timer = setTimeout(() => {
      load(abort.signal).then(
        (value) => { if (!abort.signal.aborted) setState({ value, problem: null, loading: false }); },
        (error: unknown) => {
          if (!abort.signal.aborted) setState({ value: null, problem: problemOf(error), loading: false });
        },
      );
    }, wait);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [...keys, tries]);
  return { ...state, again };
}
