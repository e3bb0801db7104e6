"""The page to mail: it needs nothing from elsewhere, and says the answer first, in either language."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.report import page, replications, verdicts
from sim.report.compare import Job, aggregate
from sim.report.outcome import Outcome
from sim.report.validated import validated
from sim.scenario.schema import Scenario

FOLDER = Path("scenarios/pilot-zone")
SHORT = ("duration=60 s", "warm_up=5 s")
Runs = tuple[list[list[Outcome]], list[Scenario]]
STORM = ("faults=[{at: 20 s, for: 20 s, stands_for: 74 h, lose_domain: {domain: N}}]",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    jobs = [
        Job(FOLDER / "island-7-pbft.yaml", SHORT, label="calm"),
        Job(FOLDER / "island-7-pbft.yaml", (*SHORT, *STORM), label="storm"),
        Job(FOLDER / "island-7-cured-pbft-storm.yaml", (*SHORT, *STORM), label="cured"),
    ]
    return _each_once(jobs, tmp_path_factory.mktemp("runs"))


def _each_once(jobs: list[Job], folder: Path) -> Runs:
    return [[one] for one in aggregate(jobs, folder, workers=1)], [job.load() for job in jobs]


class Reader(html.parser.HTMLParser):
    """What a browser would fetch, and what a person sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.seen: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action") and not (value or "").startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        if data.strip() and self.tags[-1] not in ("style", "title"):
            self.seen.append(data.strip())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_fetched_and_nothing_runs(runs: Runs, language: str) -> None:
    text = page.page(*runs, "pilotzone report", language)  # type: ignore[arg-type]
    reader = Reader(text)
    assert reader.fetched == []
    assert not {"script", "iframe", "link", "img", "object"} & {*reader.tags}
    assert "url(http" not in text
    assert len({*reader.ids}) == len(reader.ids)
    assert len(text.encode()) < page.BYTES_MAX


def test_the_answer_comes_first_and_figures_are_told(runs: Runs) -> None:
    outcomes = [design[0] for design in runs[0]]
    text = page.page(*runs, "pilotzone report a.yaml", "en")
    first = text.index(verdicts.answer(outcomes)[0])
    assert first < text.index("<table")
    assert "Losing domain N for 74 h halts storm" in text
    assert "losing domain E alone halts calm, storm and cured" in text
    assert text.count('role="img"') == text.count("<svg ") == 3
    assert all(f'aria-label="{start}' in text for start in ("Voters by", "calm answers", "Shaded"))
    assert "20 s = 74 h" in text
    assert all(outcome.digest in text and outcome.scenario_hash in text for outcome in outcomes)


def test_chinese_says_the_same_and_no_english_sentence(runs: Runs) -> None:
    pages = {language: page.page(*runs, "pilotzone report", language) for language in ("en", "zh")}  # type: ignore[arg-type]
    numbers = {
        language: sorted(re.findall(r"\d[\d,.]*\d", " ".join(Reader(text).seen))) for language, text in pages.items()
    }
    assert numbers["en"] == numbers["zh"]
    words = " ".join(Reader(pages["zh"]).seen)
    assert 'lang="zh-Hans"' in pages["zh"]
    assert "失去 N 区持续 74 h，storm停摆" in words
    assert not re.search(r"\b(the|halts|with|voters|answers|requests|assumption)\b", words)


def test_a_design_stands_beside_the_systems_that_were_measured(runs: Runs, tmp_path: Path) -> None:
    text = page.page(*runs, "pilotzone report")
    assert "<td>calm, storm and cured</td><td>bft-smart</td>" in text  # all three are PBFT, and name no platform
    jobs = [
        Job(FOLDER / "island-7-pbft.yaml", (*SHORT, f"platform={name}", f"protocol={{name: {protocol}}}"), label=name)
        for name, protocol in (("goquorum-qbft", "qbft"), ("besu-qbft", "qbft"))
    ]
    text = page.page(*_each_once(jobs, tmp_path), "pilotzone report")
    (one,) = validated("goquorum-qbft", "qbft")
    assert f'<td>goquorum-qbft</td><td>goquorum-qbft</td><td class="n">{one.means}</td>' in text
    assert "<td>besu-qbft</td><td>none</td>" in text  # its protocol was measured, it was not


def test_a_name_is_no_markup(runs: Runs) -> None:
    designs, scenarios = runs
    named = [[dataclasses.replace(one, label=f"<script>{i}</script>&\"'")] for i, (one,) in enumerate(designs)]
    text = page.page(named, scenarios, "pilotzone report '<img src=x>'", "en")
    assert "<script" not in text
    assert "<img" not in text
    assert Reader(text).fetched == []


def test_the_same_runs_make_the_same_bytes(runs: Runs, tmp_path: Path) -> None:
    for name in ("a", "b"):
        page.write(*runs, "pilotzone report", tmp_path / f"{name}.html", "zh")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_replications_are_means_with_intervals_and_a_bad_one_is_not_hidden(runs: Runs) -> None:
    (calm,), (storm,), _ = runs[0]
    p99 = [dataclasses.replace(calm, metrics=calm.metrics | {"latency_p99_ms": value}) for value in (10.0, 12.0, 14.0)]
    assert replications.cell(p99, "latency_p99_ms") == "12.0 [7.0, 17.0]"  # 4.303 x 2 / sqrt(3) on either side
    broken = dataclasses.replace(calm, status="safety violation")
    text = page.page([[*p99, broken], [storm]], runs[1][:2], "pilotzone report")
    assert "Replications of calm differ: breaks in 1 and keeps up in 3." in text
    assert text.index("Replications of calm differ") < text.index("<table")
    assert '<td>calm</td><td class="bad">breaks</td>' in text
    assert ">12.0<br><small>[7.0, 17.0]</small><" in text
    assert "calm: what did not end ok (1 of the replications) is in no mean." in text
    assert "means over 4 replications" in text


def test_a_study_is_a_page_of_its_cases(tmp_path: Path) -> None:
    study = tmp_path / "two.yaml"
    base = (FOLDER / "island-7-pbft.yaml").resolve()
    data = {
        "base": str(base), "set": {"duration": "30 s", "warm_up": "5 s"},
        "sweep": {"grid": {"protocol.name": ["pbft", "raft"]}}, "replications": 2,
    }  # fmt: skip
    study.write_text(json.dumps(data))
    words = ["report", str(study), "--out", str(tmp_path / "out"), "--to", str(tmp_path / "two.html"), "--jobs", "1"]
    done = CliRunner().invoke(app, [*words, "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "two.html").read_text("utf-8")
    assert "protocol.name=pbft" in text
    assert "protocol.name=raft" in text
    assert "means over 2 replications" in text
    assert "so few replications cannot show" in text
    assert json.loads(done.stdout)["bytes"] == len(text.encode())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scenarios/quickstart.yaml", "--to", "page.pdf"], "a page is an HTML file; write page.html"),
        (["scenarios/studies/island-7-designs.yaml", "--seed", "3"], "a study has seeds of its own"),
        (["scenarios/quickstart.yaml"] * 61, "a page shows 60 runs at the most, and these are 61"),
        (["nowhere.yaml"], "no such file"),
    ],
)
def test_what_is_no_page_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", *words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert said in done.stderr
    assert not list(tmp_path.rglob("*.html"))
