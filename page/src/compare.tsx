import { PartsNote, Why, largestEffect, parts } from "./candidates";
import { ordered, ranks } from "./changes";
import type { Order } from "./changes";
import { Effect, Scroll } from "./parts";
import type { Candidate, Explanation, ListedArtifact } from "./types";
import { plural, signed } from "./words";

export function artifactName({ title, id }: { title: string | null; id: string }): string {
  return `${title ?? "Artifact"} ${id.slice(0, 8)}`;
}

export function Choice({ artifacts, other, onOther }: {
  artifacts: ListedArtifact[]; other: ListedArtifact | null; onOther: (id: string) => void;
}) {
  return (
    <label>Compare with
      <select value={other?.id ?? ""} onChange={(event) => { onOther(event.currentTarget.value.slice(0, 12)); }}>
        <option value="">no other artifact</option>
        {artifacts.filter(({ served }) => !served).map((one) => (
          <option key={one.id} value={one.id}>{artifactName(one)}{one.phase === "ready" ? "" : ` (${one.phase})`}</option>
        ))}
      </select>
    </label>
  );
}

// The candidates by two artifacts, next to each other, in the order of the first.
export function Comparison({ mine, theirs, names, chosen, order, onChoose }: {
  mine: Explanation; theirs: Explanation; names: [string, string]; chosen: string; order: Order; onChoose: (item: string) => void;
}) {
  const rank = [ranks(mine, order), ranks(theirs, order)] as const;
  const found = new Map(theirs.candidates.map((one) => [one.item, one]));
  const most = [largestEffect(mine.candidates), largestEffect(theirs.candidates)] as const;
  return (
    <>
      <Scroll label="Candidates by two artifacts">
        <table class="candidates both">
          <thead>
            <tr><td />{names.map((name) => <><th scope="colgroup" colSpan={2} class="first" key={name}>{name}</th><td class="extra" key={`${name} rest`} /></>)}</tr>
            <tr>
              <th scope="col">Item</th>
              {names.map((name) => (
                <>
                  <th scope="col" class="number first" key={`${name} rank`}>Rank</th><th scope="col" class="number" key={`${name} score`}>Score</th>
                  <th scope="col" class="wide extra" key={`${name} parts`}>Parts</th>
                </>
              ))}
            </tr>
          </thead>
          <tbody>
            {ordered(mine, order).map((one) => {
              const other = found.get(one.item);
              return (
                <tr key={one.item} class={one.item === chosen ? "chosen" : ""}>
                  <th scope="row"><button type="button" class="link" aria-pressed={one.item === chosen} onClick={() => { onChoose(one.item); }}><bdi class="word">{one.item}</bdi></button></th>
                  <Side candidate={one} rank={rank[0].get(one.item)} most={most[0]} />
                  <Side candidate={other} rank={rank[1].get(one.item)} most={most[1]} />
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scroll>
      <PartsNote explanation={mine} />
      {mine.count === theirs.count ? null : (
        <p class="small"><strong class="tag">behind</strong> The memory of {names[1]} has {plural(theirs.count, "event")}, that of {names[0]} {mine.count.toLocaleString("en")}.</p>
      )}
      <p class="small soft">Scores of two artifacts are on different scales: compare the ranks, and the probabilities if there are any.</p>
    </>
  );
}

function Side({ candidate, rank, most }: { candidate: Candidate | undefined; rank: number | undefined; most: number }) {
  if (!candidate) return <><td class="number first">–</td><td class="number">–</td><td class="wide extra">–</td></>;
  const shares = parts(candidate);
  return (
    <>
      <td class="number first">{rank}</td>
      <td class="number">{candidate.score.toFixed(3)}{candidate.probability === null ? null : <span class="small soft part">{candidate.probability.toFixed(4)}</span>}</td>
      <td class="wide extra">
        {shares.length ? shares.map(([name, value]) => (
          <span class="part" key={name} title={`${name} ${signed(value)}`}><Effect value={value} most={most} /><span class="hidden">{name} {signed(value)}, </span></span>
        )) : "–"}
      </td>
    </>
  );
}

export function BothWhy({ mine, theirs, names, item }: {
  mine: Explanation; theirs: Explanation; names: [string, string]; item: string;
}) {
  return (
    <div class="columns even">
      {[mine, theirs].map((explanation, at) => {
        const candidate = explanation.candidates.find((one) => one.item === item);
        return <div key={at} class="side"><h3>{names[at]}</h3>{candidate ? <Why explanation={explanation} candidate={candidate} /> : null}</div>;
      })}
    </div>
  );
}

export function Second({ ranked, first, second, onSecond }: {
  ranked: Candidate[]; first: string; second: string; onSecond: (item: string) => void;
}) {
  return (
    <label class="inline">Side by side with
      <select value={second} onChange={(event) => { onSecond(event.currentTarget.value); }}>
        <option value="">no other candidate</option>
        {ranked.filter(({ item }) => item !== first).map(({ item }) => <option key={item} value={item}>{item}</option>)}
      </select>
    </label>
  );
}

// Two candidates of one artifact, by the same parts.
export function TwoCandidates({ explanation, ranked, pair }: { explanation: Explanation; ranked: Candidate[]; pair: [Candidate, Candidate] }) {
  const most = largestEffect(pair);
  const [first, second] = pair;
  return (
    <>
      <p>The scores differ by {signed(first.score - second.score)}.</p>
      <div class="columns even">
        {pair.map((one) => (
          <div key={one.item} class="side">
            <h3><bdi class="word">{one.item}</bdi></h3>
            <p class="small soft">Score {one.score.toFixed(3)}, rank {ranked.indexOf(one) + 1}</p>
            <Why explanation={explanation} candidate={one} most={most} />
          </div>
        ))}
      </div>
    </>
  );
}
