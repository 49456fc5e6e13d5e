"""The figures that pages repeat, from what benchmarks print: into `docs/facts.toml`, and into every page.

    python benchmarks/latency.py --long 1000000 --seconds 8 | python benchmarks/facts.py [--check .1]

Reads outputs of benchmarks, or `comparison.json` of `lifelong compare`: of each the facts whose command's words it has.
A page keeps its decimals. Tables that hold more, commit and machine, and `charts.py` are left to you. Prints JSON last.
"""

import argparse
import json
import pkgutil
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

from printed import places, written

ROOT = Path(__file__).parents[1]


def output(file: Path) -> tuple[dict[str, Any], set[str]]:
    """The JSON at the end of an output, and the words of its command."""
    text = file.read_text()
    try:
        document = json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
        return document, {*shlex.split(document["command"])}
    except (LookupError, ValueError, TypeError):
        sys.exit(f"{file} ends with {text[-80:]!r}, not with JSON that has 'command': give a benchmark's output.")


def figure(fact: dict[str, Any], document: Any) -> str:
    """A fact's value, by its code or in an output; a word picks a row of a list by its model."""
    if "code" in fact:
        document = eval(re.sub(r"[\w.]+:\w+", r"get('\g<0>')", fact["code"]), {"get": pkgutil.resolve_name})
    for word in fact["key"].split(".") if "key" in fact else ():
        if isinstance(document, list):
            document = {row["model"] if "model" in str(row) else str(at): row for at, row in enumerate(document)}
        document = document[word]
    step, number = fact.get("step"), document * fact.get("scale", 1)
    return written(step * round(number / step) if step else number, fact["value"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, nargs="*", default=[Path("/dev/stdin")])
    parser.add_argument("--check", type=float, help="write nothing; exit 1 if a figure is further off than this share")
    given, table, changed = parser.parse_args(), ROOT / "docs" / "facts.toml", dict[str, Any]()
    outputs, read, far = [output(file) for file in given.outputs], False, False
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/support/pages/*.md")]
    texts = {path: path.read_text() for path in [*sorted(pages), table]}
    for command, facts in tomllib.loads(texts[table]).items():
        words = {word for word in shlex.split(command) if not word.isupper()}
        mine = next((document for document, said in outputs if words <= said), None)
        read |= mine is not None
        for name, fact in facts.items():
            try:
                new = figure(fact, mine) if "code" in fact or ("key" in fact and mine) else fact["value"]
            except LookupError:
                sys.exit(f"{name}: the output of {command} has no {fact['key']}. Run it with all its models.")
            if new == fact["value"]:
                continue
            if "-" in new:
                sys.exit(f"{name} is {new} now: rewrite its sentences, and its scale in docs/facts.toml.")
            on = list[str]()
            for phrase in fact["phrases"]:
                found = [(path, *place) for path in pages for place in places(phrase, new, texts[path])]
                if not found:
                    sys.exit(f"{name}: no page has {phrase!r}. Correct the phrase in docs/facts.toml.")
                for path, start, end, right in reversed(found):
                    texts[path] = texts[path][:start] + right + texts[path][end:]
                    on.append(str(path.relative_to(ROOT)))
            entry = f'\n{name} = {{ value = "'
            texts[table] = texts[table].replace(entry + fact["value"], entry + new)
            old, now = (float(value.replace(",", "")) for value in (fact["value"], new))
            far |= given.check is not None and abs(now - old) > given.check * old
            changed[name] = [fact["value"], new, sorted({*on})]
            print(f"{name}: {fact['value']} -> {new} on {', '.join(sorted({*on}))}")
    if not read:
        sys.exit("No fact is of these commands: docs/facts.toml names those that are.")
    for path, text in texts.items() if given.check is None else ():
        path.write_text(text)
    print(json.dumps({"changed": changed}))
    sys.exit(far)


if __name__ == "__main__":
    main()
