"""Which protocol and which negatives: the user's choice, checked against the log before any work begins."""

from __future__ import annotations

from lifelong.dataset.folder import NegativeRule
from lifelong.dataset.negatives import WINDOWS
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.settings import PrepareSettings, Protocol
from lifelong.offline.preparation.sources import RawLog


def choose_protocol(log: RawLog, settings: PrepareSettings) -> Protocol:
    """The protocol that the user named, or the one of the source.

    Raises:
        UsageError: the log lacks what the protocol needs.
    """
    protocol = settings.protocol or log.protocol
    if protocol in ("impressions", "given") and log.impressions is None:
        raise UsageError(
            f"{log.name} holds no logged labels, which the protocol {protocol!r} needs",
            expected="temporal or paper",
            fix="--protocol temporal samples negatives instead"
            + ("; --tasks liked=rating>=4 makes labels of the ratings" if log.ratings is not None else ""),
        )
    if protocol == "given" and "split" not in log.impressions.columns:  # type: ignore[union-attr]
        raise UsageError(
            f"{log.name} does not say which impressions are for testing",
            expected="impressions, temporal or paper",
            fix="--protocol impressions cuts by time",
        )
    if settings.tasks and (protocol in ("impressions", "given") or not log.event_types):
        why = "which takes logged labels" if log.event_types else "and the events have no types"
        raise UsageError(
            f"tasks {', '.join(settings.tasks)} with the protocol {protocol!r}, {why}",
            expected="a log with event types, and the protocol temporal or paper",
            fix="leave out --tasks; logged labels are tasks already",
        )
    if protocol in ("temporal", "paper") and log.time_unit == "ordinal" and log.protocol != protocol:
        raise UsageError(
            f"{log.name} has no times, only an order within each user, so the protocol {protocol!r} cannot cut it",
            expected=log.protocol,
            fix=f"--protocol {log.protocol}",
        )
    if settings.ties == "seen" and protocol != "paper":
        raise UsageError(
            f"events of a target's own time are to be seen (ties=seen) with the protocol {protocol!r}",
            expected="the protocol paper, which has one target a user: others would see each other",
            fix="leave out ties, or choose --protocol paper",
        )
    if settings.cut_by == "user":
        _check_cuts_of_users(log, protocol, settings)
    return protocol


def _check_cuts_of_users(log: RawLog, protocol: Protocol, settings: PrepareSettings) -> None:
    """Refuse cuts by user where they let the future in, or where nothing is cut."""
    if log.time_unit != "ordinal":
        raise UsageError(
            f"cut_by=user, and the events of {log.name} have clock times",
            expected="ordinal times: a cut by user would train on what happened after the test targets of others",
            fix="leave out cut_by",
        )
    if protocol not in ("temporal", "impressions") or settings.vault:
        found = "a vault" if settings.vault else f"the protocol {protocol!r}"
        raise UsageError(
            f"cut_by=user with {found}",
            expected="the protocol temporal or impressions, and no vault",
            fix="leave out cut_by",
        )


def choose_rule(log: RawLog, protocol: str, settings: PrepareSettings) -> NegativeRule:
    """How negatives are drawn.

    Raises:
        UsageError: the rule does not fit the protocol or the log.
    """
    if protocol in ("impressions", "given"):
        if settings.negatives is not None:
            raise UsageError(
                f"negatives {settings.negatives!r} with the protocol {protocol!r}, which takes logged labels",
                expected="no rule",
                fix="leave out --negatives, or choose --protocol temporal",
            )
        return NegativeRule(rule="none", ratio=0, seed=settings.seed)
    rule = settings.negatives or (None if protocol == "paper" else log.negatives)
    rule = rule or ("uniform" if protocol == "paper" else "popularity")
    if protocol == "paper" and settings.ratio != 1:
        raise UsageError(
            f"ratio {settings.ratio} with the protocol 'paper', which has one example a user",
            expected="ratio 1",
            fix="choose --protocol temporal",
        )
    if rule in WINDOWS and (protocol == "paper" or log.time_unit != "seconds"):
        raise UsageError(
            f"{rule} negatives, from days by the target, with the protocol {protocol!r} on {log.name}",
            expected="the protocol temporal, and times in seconds",
            fix="choose --negatives popularity",
        )
    return NegativeRule(
        rule=rule,
        ratio=settings.ratio,
        seed=settings.seed,
        window=settings.window or WINDOWS[rule] if rule in WINDOWS else None,
        stored=protocol == "paper",
    )


def check_fields(log: RawLog, settings: PrepareSettings) -> None:
    """Refuse buckets for fields that the log does not have.

    Raises:
        ConfigError: a field does not exist; lists all of them.
    """
    fields = ("item", *log.item_fields)
    unknown = sorted(set(settings.buckets_of()) - set(fields))
    if unknown:
        problems = [f"buckets: {log.name} has no item field {field!r}" for field in unknown]
        raise ConfigError(problems, fix=f"item fields: {', '.join(fields)}")
