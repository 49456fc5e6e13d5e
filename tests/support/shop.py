"""A made-up shop with people who have a story; `lifelong try` ships its log and an artifact that was trained on it.

    PYTHONPATH=tests python -m support.shop lifelong/cli/shop

Ada shops every Saturday, Ben's taste changes, Carla comes back after months; all others are drawn.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from lifelong import prepare, train
from lifelong.config import load_config

BEGIN, DAYS, PEOPLE = datetime(2025, 1, 6, tzinfo=UTC), 600, 240
SHELVES = {
    "dairy": "oat milk,whole milk,butter,yoghurt,kefir,cream,gouda,feta,mozzarella,quark",
    "bakery": "rye bread,baguette,croissant,bagels,pretzel,cinnamon roll,toast,pita",
    "fruit": "apples,bananas,oranges,pears,grapes,kiwis,lemons",
    "summer fruit": "strawberries,cherries,peaches,watermelon,apricots",
    "vegetables": "carrots,onions,potatoes,tomatoes,cucumber,spinach,courgettes,peppers,garlic",
    "winter": "gingerbread,mulled wine,clementines,chestnuts,hot chocolate",
    "pantry": "rice,spaghetti,lentils,chickpeas,olive oil,flour,sugar,honey,tomato sauce,muesli",
    "hot drinks": "coffee,espresso,green tea,black tea,herbal tea",
    "cold drinks": "sparkling water,cola,apple juice,orange juice,iced tea,beer",
    "meat": "chicken,minced beef,salami,ham,sausages",
    "vegan": "tofu,tempeh,soy yoghurt,vegan burger,hummus,falafel",
    "fish": "salmon,tuna,herring,prawns",
    "baby": "nappies,baby porridge,wet wipes,baby formula",
    "pets": "cat food,dog food,cat litter,dog treats",
    "home": "soap,toilet paper,washing powder,dish soap,candles,light bulbs,bin bags",
    "sweets": "dark chocolate,gummy bears,biscuits,ice cream,crisps,peanuts",
}
ITEMS = {item: shelf for shelf, names in SHELVES.items() for item in names.split(",")}
IN_SEASON = {"summer fruit": (6, 7, 8), "winter": (11, 12)}
FIELDS = ("user", "item", "time", "category", "price")
MAPPING: dict[str, Any] = {name: name for name in FIELDS[:3]} | {"fields": list(FIELDS[3:]), "numbers": ["price"]}


def prices() -> dict[str, float]:
    draw = Random("prices")
    return {item: round(draw.uniform(0.8, 9.5), 1) + 0.05 for item in ITEMS}


def taste(draw: Random, shelves: list[str] | None = None) -> list[str]:
    """Some 14 items that one buys again and again, of a few shelves."""
    chosen = shelves or draw.sample(sorted(SHELVES), 5)
    pool = [item for item in ITEMS if ITEMS[item] in chosen]
    return draw.sample(pool, min(14, len(pool)))


def basket(draw: Random, liked: list[str], moment: datetime, size: int) -> list[str]:
    season = [item for item in ITEMS if moment.month in IN_SEASON.get(ITEMS[item], ())]
    out = [item for item in ITEMS if ITEMS[item] not in IN_SEASON]
    found = set()
    for _ in range(size):
        luck = draw.random()
        weights = [1 / (place + 2) for place in range(len(liked))]
        found.add(
            draw.choices(liked, weights)[0] if luck < 0.75 else draw.choice(season if luck < 0.85 and season else out)
        )
    return sorted(found)


def visits(draw: Random, every: float) -> Iterator[datetime]:
    moment = BEGIN + timedelta(days=draw.uniform(0, every), hours=draw.randint(8, 19))
    while moment < BEGIN + timedelta(days=DAYS):
        yield moment
        moment += timedelta(days=max(0.5, draw.gauss(every, every / 4)), minutes=draw.randint(-90, 90))


def events() -> list[tuple[datetime, str, str]]:
    """(time, user, item), by time."""
    found = []
    for number in range(PEOPLE):
        draw = Random(f"person {number}")
        liked, every, size = taste(draw), draw.choice([2.5, 4, 7, 7, 14, 21]), draw.randint(2, 8)
        found += [
            (moment, f"customer {number}", item)
            for moment in visits(draw, every)
            for item in basket(draw, liked, moment, size)
        ]
    draw = Random("stories")
    ada = ["oat milk", "rye bread", "coffee", "apples", "dark chocolate", "tomatoes", "gouda", "salmon"]
    before, after = taste(draw, ["meat", "sweets", "cold drinks"]), taste(draw, ["vegan", "vegetables", "hot drinks"])
    carla = ["baguette", "butter", "espresso", "cat food", "cat litter", "cherries"]
    for week in range(DAYS // 7):
        saturday = BEGIN + timedelta(days=7 * week + 5, hours=10)
        found += [(saturday, "Ada", item) for item in basket(draw, ada, saturday, 7)]
        thursday = BEGIN + timedelta(days=7 * week + 3, hours=18)
        found += [(thursday, "Ben", item) for item in basket(draw, before if week < 62 else after, thursday, 7)]
        if week < 40 or week > 80:
            found += [(thursday, "Carla", item) for item in basket(draw, carla, thursday, 5)]
    return sorted(found)


def main(out: Path) -> None:
    """Write `events.csv.gz` and `artifact` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    cost = prices()
    with tempfile.TemporaryDirectory() as work:
        log = Path(work) / "events.csv"
        with log.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(FIELDS)
            for moment, user, item in events():
                rows.writerow((user, item, int(moment.timestamp()), ITEMS[item], f"{cost[item]:.2f}"))
        dataset = prepare(log, out=Path(work) / "data", **MAPPING)
        settings = ["train.max_epochs=6", "train.negatives=3", "train.learning_rate=0.003", "train.schedule=cosine"]
        config = load_config(None, settings)
        artifact = train(dataset, "tally", Path(work) / "artifact", config=config, progress=True)
        print(artifact.metrics["validation"])
        shutil.rmtree(out / "artifact", ignore_errors=True)
        shutil.copytree(artifact.path, out / "artifact")
        # Without the time in its head, the same log is the same file.
        with gzip.GzipFile(out / "events.csv.gz", "wb", mtime=0) as packed:
            packed.write(log.read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
