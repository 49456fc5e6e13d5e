import * as api from "./api";
import { useLoaded } from "./hooks";
import { Failure } from "./parts";
import type { StoryKind } from "./types";
import { ago, plural } from "./words";

const STORIES: [StoryKind | "", string, string][] = [
  ["", "Any", "every user"],
  ["long_term", "Long-term", "does lately what she always did"],
  ["short_term", "Short-term", "does lately something else than before"],
  ["several", "Several time scales", "does lately some of what she always did, and something else"],
  ["returned", "Came back", "came back after 90 days or more without an event"],
];
const LISTED = 40;

export function Users({ chosen, story, text, version, onUser, onStory, onText }: {
  chosen: string; story: StoryKind | ""; text: string; version: number;
  onUser: (user: string) => void; onStory: (story: StoryKind | "") => void; onText: (text: string) => void;
}) {
  const found = useLoaded((signal) => api.users(text.trim(), story, LISTED, signal), [text.trim(), story, version], 150);
  const now = Date.now() / 1000;
  const unnamed = text.trim() && !found.value?.users.some(({ user }) => user === text.trim());
  return (
    <nav class="panel users" aria-labelledby="users-title">
      <h2 id="users-title">Users</h2>
      <form role="search" onSubmit={(event) => {
        event.preventDefault();
        const first = found.value?.users[0]?.user;
        const wanted = text.trim() || first;
        if (wanted) onUser(unnamed && first ? first : wanted);
      }}>
        <label>Find by id
          <input type="search" value={text} maxLength={256} autocomplete="off" spellcheck={false} placeholder="part of an id"
            onInput={(event) => { onText(event.currentTarget.value); }} />
        </label>
      </form>
      <fieldset class="chips">
        <legend>Find by story</legend>
        {STORIES.map(([kind, name, meaning]) => (
          <label key={kind} title={meaning}>
            <input type="radio" name="story" checked={story === kind} onChange={() => { onStory(kind); }} />
            <span>{name}</span>
          </label>
        ))}
      </fieldset>
      <p class="soft small">{story ? `Who ${STORIES.find(([kind]) => kind === story)?.[2] ?? ""}; found by a fixed rule in the service.` : ""}</p>
      {found.problem ? <Failure problem={found.problem} again={found.again} /> : null}
      <ul class="people" aria-busy={found.loading}>
        {(found.value?.users ?? []).map((one) => (
          <li key={one.user}>
            <button type="button" aria-current={one.user === chosen ? "true" : undefined} onClick={() => { onUser(one.user); }}>
              <bdi class="word">{one.user}</bdi>
              <span class="small soft">
                {plural(one.count, "event")}
                {one.last_time !== null && one.last_time > 1e8 ? `, ${ago(now - one.last_time)}` : ""}
                {one.recent ? ", just now active" : ""}
              </span>
              {one.story ? <span class="small">{one.story.words}</span> : null}
            </button>
          </li>
        ))}
      </ul>
      <p class="small soft" role="status">
        {found.problem ? "" : found.value && !found.loading ? listNote(found.value.users.length, found.value.looked_at, found.value.complete) : "Looking …"}
      </p>
      {unnamed && found.value && !found.loading ? (
        <button type="button" class="quiet" onClick={() => { onUser(text.trim()); }}>
          Look at <bdi class="word">{text.trim()}</bdi> as a new user
        </button>
      ) : null}
    </nav>
  );
}

function listNote(listed: number, looked: number, complete: boolean): string {
  const most = listed === LISTED ? "The first " : "";
  const where = complete ? `of ${plural(looked, "user")} in the store` : `of the store’s first ${looked.toLocaleString("en")}; any other is found by the whole id`;
  return `${most}${listed} ${where}.`;
}
