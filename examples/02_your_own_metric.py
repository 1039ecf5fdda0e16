"""A plugin from outside: a metric of your own, without touching Genwright.

A plugin is a module. Here it is written to a folder, offered under the entry-point group `genwright.metrics` as an
installed distribution would offer it, and used by name in a recipe.
"""

import sys
from pathlib import Path

METRIC = '''
"""Share of answers that end with a full stop."""

from genwright.core import Pairs, Score, Settings


def score(pairs: Pairs, settings: Settings, **context: object) -> Score:
    each = tuple(float(pair.said.rstrip().endswith(".")) for pair in pairs)
    return Score(sum(each) / len(each), each, signature="full_stop|version:1")
'''


def main() -> None:
    folder = Path("my_plugin").resolve()
    (folder / "my_plugin-1.0.dist-info").mkdir(parents=True, exist_ok=True)
    (folder / "full_stop.py").write_text(METRIC.lstrip())
    (folder / "my_plugin-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (folder / "my_plugin-1.0.dist-info/entry_points.txt").write_text("[genwright.metrics]\nfull_stop = full_stop\n")
    sys.path.insert(0, str(folder))

    from genwright.core import Example, Judged, assistant, choose, shelves, user

    print("full_stop:", shelves["metrics"].help("full_stop"))
    metric = choose("metrics", "full_stop")
    asked = Example((user("How are you?"), assistant("Well.")))
    print(metric([Judged(asked, assistant("Fine.")), Judged(asked, assistant("Fine"))]))


if __name__ == "__main__":
    main()
