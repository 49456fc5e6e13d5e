"""`lifelong score`: artifact + store -> scores of some candidates, or of a file of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.explain import explanation_reply
from lifelong.cli.opening import open_pair, open_scorer
from lifelong.cli.options import (
    ArtifactPath,
    BaseRate,
    MappingFile,
    ProfileOption,
    Time,
    base_rate_of,
    check_request,
    names,
    profile_of,
)
from lifelong.cli.terminal import Reply, Terminal, columns
from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.online.scoring.answer import Answer, Score, ScoreRequest, TaskScore
    from lifelong.online.scoring.scorer import Scorer


def score(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="Memories, as in rocksdb:///path; needed without --part."),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="USER", help="Id of the user.")] = None,
    items: Annotated[str | None, typer.Option(metavar="ITEM,...", help="Ids of the candidates.")] = None,
    time: Time = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--requests",
            metavar="FILE",
            help="Requests: csv or parquet with the columns user, item and, optionally, time, written as in --time.",
        ),
    ] = None,
    mapping: MappingFile = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scores: csv or parquet; with --part a folder.")
    ] = None,
    profile: ProfileOption = None,
    base_rate: BaseRate = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the counters, slots and past events behind each score.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="With --explain: dataset that holds the user's events. With --part: events, ordered by user.",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="K/N", help="Only part K of N of the users; from DATA, into a folder."),
    ] = None,
) -> Reply:
    """Score candidates from the memories in a store, or from events; explain the scores."""
    needed = {"requests": source, "data": data, "time": time, "out": out}
    _check_form(part, store, [name for name, given in needed.items() if given is None])
    candidates = names(items or "")
    _check(user=user, items=items, source=source, out=out)
    if (explain and source is not None) or (data is not None and not explain and part is None):
        raise UsageError(
            "--data without --explain" if not explain else "--explain with --requests",
            expected="--explain with --user U --items I1,I2",
            fix="ask for the explanation of one user's candidates",
        )
    if part is not None and out is not None:
        return _part(terminal, artifact, part, data, base_rate, source=source, out=out, mapping=mapping, time=time)
    from lifelong.online.scoring.answer import ScoreRequest

    with open_scorer(artifact, store or "", base_rate=base_rate_of(base_rate)) as scorer:
        if source is not None and out is not None:
            return _file(terminal, scorer, source=source, out=out, mapping=mapping, time=time)
        if not candidates:
            raise UsageError("no candidate is given", expected="at least one item id", fix="--items I1,I2")
        check_request(user or "", time, time_unit=scorer.schema.time_unit)
        request = ScoreRequest(user or "", candidates, time, profile=profile_of(profile))
        return explanation_reply(scorer, request, data) if explain else _one(scorer, request)


def _check_form(part: str | None, store: str | None, missing: Sequence[str]) -> None:
    found = "--part with --store" if part and store else "" if part or store else "no --store"
    if part and not store and missing:
        found = f"--part without {' and '.join(f'--{name}' for name in missing)}"
    if found:
        raise UsageError(
            found,
            expected="--store URL, or --part K/N --data EVENTS --requests FILE --time TIME --out FOLDER",
            fix="give all options of one of the two forms",
        )


def _check(*, user: str | None, items: str | None, source: Path | None, out: Path | None) -> None:
    """Check that exactly one of the two forms is given."""
    request, table = (user is not None, items is not None), (source is not None, out is not None)
    if (all(request) and not any(table)) or (all(table) and not any(request)):
        return
    options = [
        name
        for name, is_given in zip(("--user", "--items", "--requests", "--out"), (*request, *table), strict=True)
        if is_given
    ]
    raise UsageError(
        f"found {' and '.join(options) or 'no request'}",
        expected="--user U --items I1,I2, or --requests FILE --out FILE",
        fix="give all options of one of the two forms",
    )


def _one(scorer: Scorer, request: ScoreRequest) -> Reply:
    answer = scorer.answer([request])[0]
    several = list(answer.scores[0].tasks or {})
    heads = [f"{word}, {task}" for task in several for word in ("score", "probability")] or ["score", "probability"]
    rows = [
        [score.item, *(_number(value) for of in _tasks(score).values() for value in (of.score, of.probability))]
        # For people by score; the document keeps the order of the request.
        for score in sorted(answer.scores, key=lambda score: -score.score)
    ]
    reasons = {(task, of.reason) for score in answer.scores for task, of in _tasks(score).items() if of.reason}
    notes = [f"No probability{f' of {task}' if task else ''}: {_how(task, reason)}" for task, reason in sorted(reasons)]
    if unknown := [score.item for score in answer.scores if not score.known_item]:
        notes.append(f"Not met in training, scored as unknown items: {', '.join(unknown)}")
    return Reply(_document(answer), [_sentence(answer), columns("item", *heads, rows=rows), *notes])


def _how(task: str, reason: str) -> str:
    """A reason, and the option that states what it asks for."""
    from lifelong.artifact.calibration import NO_BASE_RATE

    return f"{reason}: --base-rate {f'{task}=' if task else ''}0.02" if reason == NO_BASE_RATE else reason


def _tasks(score: Score) -> Mapping[str, Score | TaskScore]:
    """Task -> its answer; the only task of a model has no name here."""
    return score.tasks or {"": score}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _document(answer: Answer) -> dict[str, Any]:
    return {
        "user": answer.user,
        "known_user": answer.known_user,
        "count": answer.count,
        "scores": [_score(score) for score in answer.scores],
    }


def _score(score: Score) -> dict[str, Any]:
    document = asdict(score)
    # With one task, its scores are already at the top level.
    return document if score.tasks else {key: value for key, value in document.items() if key != "tasks"}


def _sentence(answer: Answer) -> str:
    if not answer.known_user:
        return f"User {answer.user} is not known: scored from the empty memory."
    return f"User {answer.user}: scored from a memory of {answer.count:,} events."


def _part(
    terminal: Terminal, artifact: Path, part: str, data: Path | None, base_rate: str | None, *, out: Path, **table: Any
) -> Reply:
    """Score one part of the users from events: a run that is killed leaves a hidden folder, which the next removes."""
    from lifelong.atomic import building, remove_remains, sync
    from lifelong.online.ingestion.folding import fill_log
    from lifelong.online.ingestion.parts import share_of
    from lifelong.online.scoring.scorer import Scorer

    share = share_of(part)
    place = out / f"part-{share.numbers[0]}-of-{share.of}.parquet"
    # Whoever reads the folder takes all of its files, and would have some users twice.
    if others := sorted(set(out.glob("part-*-of-*.parquet")) - set(out.glob(f"part-*-of-{share.of}.parquet"))):
        raise UsageError(
            f"part {part} for {out}, which has {others[0].name}",
            expected=f"a folder of parts of {share.of}",
            fix="name another folder with --out, or move the parts of another number away",
        )
    remove_remains(place)
    if place.exists():
        return Reply({"rows": 0, "out": str(place)}, [f"part {part} is there already"])
    with open_pair(artifact, "memory://", read_only=False) as (opened, memories), building(place) as folder:
        fill_log(opened, str(data), memories, mapping=table["mapping"], share=share)
        scorer, draft = Scorer(opened, memories, base_rate=base_rate_of(base_rate)), folder / place.name
        reply = _file(terminal, scorer, out=place, draft=draft, share=share, **table)
        # If another process was faster, its file has the same bytes.
        draft.replace(place)
        sync(out)
    return reply


def _file(
    terminal: Terminal, scorer: Scorer, *, out: Path, mapping: Path | None, draft: Path | None = None, **table: Any
) -> Reply:
    from lifelong.dataset.mapping import mapping_from
    from lifelong.online.scoring.tables import score_table

    check_request(None, table["time"], time_unit=scorer.schema.time_unit)
    table |= {"mapping": None if mapping is None else mapping_from(mapping), "out": draft or out}
    with terminal.progress("rows") as advance:
        rows = score_table(scorer, **table, progress=lambda done: advance(done, done))
    return Reply({"rows": rows, "out": str(out)}, [f"Scored {rows:,} rows into {out}"])
