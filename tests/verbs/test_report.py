"""The report: right figures, safe and accessible pages, drawn again from what was written."""

import doctest
import json
import re
from html.parser import HTMLParser

import pytest

from genwright.core import Run, UsageError
from genwright.verbs import plots, report
from genwright.verbs.page import loss_curves, page
from genwright.verbs.plots import bars, gain_against_forgetting, lines, ticks
from genwright.verbs.report import Report, markdown, rebuild, side_by_side, summary, table_rows, write_report

EVIL = '</pre><script>alert("x")</script> & | 好\nnext'


def score(value, low=None, high=None, better=True):
    return {"value": value, "low": low, "high": high, "unit": "0–100", "higher_is_better": better,
            "signature": "sig|v:1", "details": {}}  # fmt: skip


def difference(value, low, high, verdict):
    return {"value": value, "low": low, "high": high, "p": 0.01, "verdict": verdict}


def facts(**more):
    rows = [
        {"metric": "chrf", "base": score(31.0, 29, 33), "tuned": score(44.0, 42, 46),
         "difference": difference(13.0, 11.0, 15.0, "better")},
        {"metric": "forgetting", "base": score(3.0, 2.9, 3.1, False), "tuned": score(3.2, 3.1, 3.3, False),
         "difference": difference(0.2, 0.1, 0.3, "worse")},
    ]  # fmt: skip
    found = {
        "version": 1, "name": "blurbs", "task": "instruct", "model": "m", "method": "lora", "seed": 0, "compared": True,
        "rows": rows, "not_judged": [{"metric": "ece", "why": "no probabilities"}], "notes": ["A note."],
        "loss": {"base": score(3.0), "tuned": score(2.0), "difference": difference(-1.0, -1.2, -0.8, "better")},
        "shots": [{"metric": "chrf", "shots": k, "base": score(31.0 + k), "tuned": score(44.0), "difference": None}
                  for k in (0, 4)],
        "samples": [{"row": 7, "prompt": EVIL, "wanted": "w", "base": "", "tuned": EVIL,
                     "scores": {"base": {"chrf": 1.5}, "tuned": {"chrf": 2.5}}}],
        "counts": {"train": 10, "held_out": 5, "answered": 5, "likelihoods": 5, "general": 2},
        "data": {"train": "a" * 64, "held_out": "b" * 64, "general": "g@1"}, "settings": {},
        "seconds": {"tuned": 1.0, "base": 2.0},
    }  # fmt: skip
    return found | more


EVENTS = [{"event": "step", "step": s, "loss": 3.0 - 0.1 * s} for s in range(1, 11)]
EVENTS += [{"event": "look", "step": 10, "held_out_loss": 2.5}]


class Page(HTMLParser):
    """Tags, ids and words of a page; fails when tags are not closed in order."""

    EMPTY = frozenset({"meta"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(report).failed == 0
    assert doctest.testmod(plots).failed == 0


def test_the_page_is_whole_safe_and_needs_nothing_from_outside():
    text = page(facts(), EVENTS)
    found = Page(text)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert "img" not in found.tags
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "&lt;script&gt;" in text
    assert "好" in text
    assert text.startswith("<!doctype html>")


def test_the_page_can_be_read_by_all():
    text = page(facts(), EVENTS)
    found = Page(text)
    labelled = [a for tag, a in zip(found.tags, found.attributes, strict=True) if tag == "svg"]
    assert labelled
    assert all(a["role"] == "img" and a["aria-label"] for a in labelled)
    assert {a.get("scope") for tag, a in zip(found.tags, found.attributes, strict=True) if tag == "th"} == {
        "col",
        "row",
    }
    ids = [a["id"] for a in found.attributes if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["aria-labelledby"] in ids for a in found.attributes if "aria-labelledby" in a)
    assert 'lang="en"' in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert found.tags.count("h1") == 1


def test_every_plot_is_on_the_page():
    text = page(facts(), EVENTS, [facts(name="other", rows=facts()["rows"])])
    for title in ("Loss while tuning", "Gain against forgetting", "chrf ↑", "forgetting ↓", "chrf against examples"):
        assert title in text
    assert "1 other runs judged on the same rows" in text
    assert "Loss while tuning" not in page(facts())
    assert "Gain against forgetting" not in page(facts(loss=None))


def test_the_table_shows_values_interval_and_verdict():
    columns, rows = table_rows(facts())
    assert columns[:3] == ("metric", "base", "tuned")
    assert rows[0] == ("chrf ↑", "31.00", "44.00", "+13.00", "+11.00 … +15.00", "better")
    assert rows[1][0] == "forgetting ↓"
    columns, rows = table_rows(facts(compared=False))
    assert rows[0] == ("chrf ↑", "44.00", "42.00 … 46.00")


def test_floors_and_baselines_stand_beside_a_figure():
    found = facts(compared=False)
    found["rows"][0]["tuned"]["beside"] = {"true pictures": 1.5, "<b>chance</b>": 0.04}
    columns, rows = table_rows(found)
    assert columns == ("metric", "tuned", "95 % interval", "beside it")
    assert [row[-1] for row in rows] == ["true pictures 1.50 · <b>chance</b> 0.040", ""]
    text = page(found)
    assert "true pictures 1.50<br>&lt;b&gt;chance&lt;/b&gt; 0.040" in text
    assert table_rows(facts())[0][-1] == "", "no column where nothing stands beside"


def test_the_sentence_says_what_is_better_and_what_is_worse():
    assert summary(facts()) == "Tuned beside base on the same held-out rows: better in chrf; worse in forgetting."


def test_the_terminal_shows_answers_and_what_was_not_judged():
    told = list(side_by_side(facts()))
    assert "  tuned  " + " ".join(EVIL.split()) in told
    assert any("ece was not judged" in line for line in told)
    assert "A note." in told


def test_markdown_tables_survive_pipes_and_line_breaks():
    text = markdown(facts())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    counts = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert set(counts) == {7, 5, 3}
    assert "<script>" not in text
    assert "`sig|v:1`" in text


def test_a_report_is_drawn_again_from_what_was_written(tmp_path):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    for event in EVENTS:
        run.log(**event)
    write_report(Report(facts()), run.folder)
    first = (run.folder / "report.html").read_text()
    assert "Loss while tuning" in first
    (run.folder / "report.html").unlink()
    assert [path.name for path in rebuild(run)] == ["report.json", "report.md", "report.html"]
    assert (run.folder / "report.html").read_text() == first
    assert Report.load(run.report_file).score("chrf") == 44.0


def test_a_run_that_was_not_judged_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="not been evaluated"):
        rebuild(Run(tmp_path))


def test_neighbours_are_runs_judged_on_the_same_rows(tmp_path):
    for name, other in (("a", {}), ("b", {}), ("c", {"data": {"train": "x", "held_out": "y", "general": "z"}})):
        write_report(Report(facts(name=name, **other)), tmp_path / name)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "report.json").write_text(json.dumps([1]))
    write_report(Report(facts(name="a")), tmp_path / "a")
    assert "1 other runs" in (tmp_path / "a" / "report.html").read_text()
    assert "other runs" not in (tmp_path / "c" / "report.html").read_text()


# -- plots -------------------------------------------------------------------------------------------------------------


def test_a_step_done_again_after_a_resume_counts_once_and_long_curves_are_thinned():
    events = [{"event": "step", "step": 1, "loss": 9.0}, {"event": "step", "step": 1, "loss": 1.0},
              {"event": "step", "step": 2, "loss": None}, {"event": "other"}]  # fmt: skip
    assert loss_curves(events)["training"] == [(1.0, 1.0)]
    many = [{"event": "step", "step": s, "loss": float(s)} for s in range(5000)]
    assert len(loss_curves(many)["training"]) <= 400
    assert loss_curves(many)["training"][0][1] == pytest.approx(6.0)


@pytest.mark.parametrize("span", [(0, 1), (-3, 5), (0.001, 0.0011), (5, 5000), (1e-9, 2e-9)])
def test_ticks_are_few_and_within(span):
    found = ticks(*span, count=5)
    assert 2 <= len(found) <= 7
    assert all(span[0] - 1e-9 <= t <= span[1] + 1e-9 for t in found)


def test_plots_hold_at_their_edges():
    assert lines({"a": []}, title="t", x="x", y="y") == ""
    still = {"name": "r", "here": True, "gain": (0.0, None, None), "lost": (0.0, None, None)}
    for drawn in (
        lines({"a": [(1, 2)]}, title="t", x="x", y="y"),
        lines({"a": [(1, 2), (2, 2)]}, title='"quoted" <t>', x="x", y="y"),
        bars([("base", 0.0, None, None)], title="t"),
        bars([("base", -2.0, -3.0, -1.0), ("tuned", 5.0, 4.0, 6.0)], title="t"),
        gain_against_forgetting([still], title="t"),
    ):
        Page(drawn)
        assert "nan" not in drawn.lower()
        assert "inf" not in drawn.lower()


def test_bars_are_as_long_as_their_values():
    drawn = bars([("base", 10, None, None), ("tuned", 20, None, None)], title="t")
    widths = [float(w) for w in re.findall(r'class="bar[^>]* width="([\d.]+)"', drawn)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)
