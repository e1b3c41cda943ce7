"""The page for people, read back as a browser would read it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from justhtml import Element, JustHTML

from lora_server.evaluation.page import render
from lora_server.evaluation.report import HeatMap
from lora_server.evaluation.wording import printable, shortened
from tests.evaluation.reports import ALL, HOSTILE_NAMES, UNAVAILABLE, healthy

REPORTS = sorted(ALL.keys() - {"huge"})  # its page is made of the same parts, only longer
MOST_BYTES = 1_500_000
VOID_OF_MEANING = {"style", "title", "desc"}
# Whatever may make a browser ask somebody for something.
LOADING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "ping"}
LANDMARKS = ("header", "nav", "main", "footer")


@cache
def page(name: str) -> str:
    """Return the page of one of the reports."""
    return render(ALL[name]())


@cache
def tree(name: str) -> JustHTML:
    """Return its tree as a browser builds it; a page that needs repair is an error."""
    return JustHTML(page(name), strict=True, sanitize=False)


@cache
def elements(name: str, selector: str = "*") -> list[Element]:
    """Return the elements of a page that a selector names."""
    return of(tree(name), selector)


def of(document: JustHTML | Element, selector: str) -> list[Element]:
    """Return the elements below one that a selector names."""
    return [node for node in document.query(selector) if isinstance(node, Element)]


def words(element: Element) -> str:
    """Return what an element says, white space made even."""
    return " ".join(element.to_text().split())


def drawn_text(name: str) -> Iterator[str]:
    """Yield each piece of text outside of style sheets and plots."""
    for element in elements(name, "h1, h2, h3, p, li, td, th, dd, dt, code, summary"):
        yield words(element)


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_runs_and_nothing_is_fetched(name: str) -> None:
    """The page has no script, no handler and no address but those within itself."""
    tags = Counter(element.name for element in elements(name))

    assert not tags.keys() & {"script", "iframe", "object", "embed", "img", "base", "form", "use"}
    assert tags["style"] == tags["title"] - tags["svg"] - len(elements(name, "rect > title")) == 1
    for element in elements(name):
        for attribute, value in element.attrs.items():
            assert not attribute.startswith("on")
            assert attribute != "style"
            if attribute in LOADING:
                assert (value or "").startswith(("#", "data:,"))
    assert not re.search(
        r"url\(|@import|expression\(", "".join(map(words, elements(name, "style")))
    )


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_forbids_itself_everything(name: str) -> None:
    """Were anything to slip through, the browser would still not run or load it."""
    policies = elements(name, 'meta[http-equiv="Content-Security-Policy"]')

    assert [set((p.attrs["content"] or "").split("; ")) for p in policies] == [
        {
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        }
    ]


@pytest.mark.parametrize("name", REPORTS)
def test_ids_are_unique_and_every_reference_has_its_target(name: str) -> None:
    """Links within the page and names of plots lead somewhere, and to one place only."""
    ids = Counter(e.attrs["id"] for e in elements(name) if "id" in e.attrs)
    wanted = {
        one
        for element in elements(name)
        for one in (element.attrs.get("aria-labelledby") or "").split()
    }
    wanted |= {(e.attrs["href"] or "")[1:] for e in elements(name, "a")}

    assert set(ids.values()) == {1}
    assert wanted <= ids.keys()


@pytest.mark.parametrize("name", REPORTS)
def test_headings_are_in_order(name: str) -> None:
    """A screen reader's list of headings is an outline: one first, and no level skipped."""
    levels = [int(e.name[1]) for e in elements(name, "h1, h2, h3, h4, h5, h6")]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", REPORTS)
def test_every_plot_has_a_name_a_description_and_its_numbers(name: str) -> None:
    """Who cannot see a plot reads what it shows, and finds the numbers under it."""
    for figure in elements(name, "figure"):
        (svg,) = of(figure, "svg")
        named = [
            words(target)
            for key in (svg.attrs["aria-labelledby"] or "").split()
            for target in elements(name, f"#{key}")
        ]

        assert svg.attrs["role"] == "img"
        assert len(named) == 2
        assert all(len(text) > 5 for text in named)
        assert figure.query("figcaption h3")
        assert figure.query("details summary")
        assert figure.query("details table tbody td")


@pytest.mark.parametrize("name", REPORTS)
def test_tables_have_captions_and_headings(name: str) -> None:
    """Each table says what it is, each column and row has its heading, and no row is ragged."""
    for table in elements(name, "table"):
        width = len(list(table.query("thead th[scope=col]")))

        assert len(list(table.query("caption"))) == 1
        for row in of(table, "tbody tr"):
            assert len(list(row.query("th[scope=row]"))) == 1
            assert len(list(row.query("td"))) == width - 1


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_has_landmarks_and_a_language(name: str) -> None:
    """One of each landmark; what scrolls sideways can be reached by keyboard and has a name."""
    tags = Counter(element.name for element in elements(name))

    assert [tags[landmark] for landmark in LANDMARKS] == [1, 1, 1, 1]
    assert elements(name, "html")[0].attrs["lang"] == "en"
    for region in elements(name, ".scroll"):
        assert region.attrs["tabindex"] == "0"
        assert region.attrs["role"] == "region"
        assert region.attrs["aria-label"]


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_page_is_over_its_bound(name: str) -> None:
    """5,000 modules, 24,000 cells of a heat map and hundreds of relatives make no huge page."""
    assert len(page(name).encode()) < MOST_BYTES


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_not_known_is_never_a_word_of_the_machine(name: str) -> None:
    """No None and no nan reaches a person."""
    assert not {"None", "nan", "inf"} & {word for text in drawn_text(name) for word in text.split()}


@pytest.mark.parametrize(
    ("name", "word", "step"),
    [
        ("healthy", "Pass", "Nothing has to be done."),
        ("duplicate", "Review", "Keep one of the two."),
        ("failing", "Fail", "Do not use this file"),
        ("dora", "Inconclusive", "Configure the base model"),
    ],
)
def test_the_verdict_comes_first_with_what_to_do(name: str, word: str, step: str) -> None:
    """At the top: one word, the headline, and the advice of the worst finding."""
    (banner,) = elements(name, "header .verdict")

    assert word in words(banner)
    assert ALL[name]().headline in words(banner)
    assert f"What to do first: {step}" in words(banner)


def test_findings_are_sorted_by_severity() -> None:
    """The fail stands before what is only noted, and checks that passed are folded away."""
    titles = [words(title) for title in elements("failing", ".finding h3")]

    assert [title.split(" · ")[0] for title in titles] == [
        "Finite values Fail",
        "Size Note",
        "Fits its base model Not checked",
    ]
    assert "3 checks passed" in words(elements("failing", "details.passed summary")[0])


def test_a_finding_names_its_modules_and_its_advice() -> None:
    """The person is told where, and what to do."""
    finding = words(elements("failing", ".finding")[0])

    assert "lora_unet_mid_block_attentions_0_proj_in" in finding
    assert "What to do: Do not use this file" in finding


def test_the_lora_is_described() -> None:
    """Type, base, rank, size and trigger words stand together."""
    facts = words(elements("healthy", "#lora")[0])

    for fact in ("styles", "sdxl", "LoRA", "64", "292 MB", "inkwash", "sumi-e style", "9f86d08"):
        assert fact in facts


def test_resizing_is_told_in_words_and_as_a_table() -> None:
    """How much of the rank is used, what a cut keeps, and what other cuts would keep."""
    section = words(elements("healthy", "#rank")[0])
    rows = [words(row) for row in elements("healthy", "#rank > .scroll tbody tr")]

    assert "Rank 64 is declared, about 6.85 is used" in section
    assert "Cutting to rank 24 keeps 99.4 % of the strength" in section
    assert [row.split()[0] for row in rows] == ["2", "4", "8", "16", "24", "32"]


@pytest.mark.parametrize(
    ("name", "plots"),
    [
        ("healthy", ["spectrum", "ranks", "depth-1", "targets", "groups", "parts", "company"]),
        ("lonely", ["spectrum", "ranks", "depth-1", "targets", "groups", "parts"]),
        ("unmeasured", ["company"]),
    ],
)
def test_what_can_be_drawn_is_drawn(name: str, plots: list[str]) -> None:
    """A plot without numbers is left out, not drawn empty."""
    assert [figure.attrs["id"] for figure in elements(name, "figure")] == [
        f"fig-{plot}" for plot in plots
    ]


def test_neighbours_and_conflicts_are_listed() -> None:
    """Each relative with its kind and its numbers; what was not computed is a dash."""
    rows = [words(row) for row in elements("healthy", "#relatives tbody tr")]

    assert rows[0].startswith("styles/ink_v2.safetensors same training 0.9300 0.810 78")
    assert rows[2].startswith("clothes/kimono.safetensors similar 0.1200 \N{EN DASH} 70")
    assert "identities/mika.safetensors" in rows[3]
    assert "12 cross attention modules" in rows[3]


def test_no_relatives_is_said() -> None:
    """The first LoRA of its kind gets sentences instead of empty tables."""
    assert "No stored LoRA resembles this one" in words(elements("lonely", "#relatives")[0])
    assert "No other LoRA of this type" in words(elements("lonely", "#company")[0])
    assert not elements("lonely", "#relatives table")


def test_the_strongest_hundred_modules_are_listed_and_the_rest_is_summed_up() -> None:
    """Of 100,000 modules 100 rows remain, strongest first, and one sentence."""
    section = elements("huge", "#modules")[0]
    shares = [words(cell) for cell in elements("huge", "#modules tbody td:nth-child(3)")]

    assert len(shares) == 100
    assert shares == sorted(shares, reverse=True)
    assert "99,900 other modules hold 95.1 % of the energy" in words(section)


def test_limits_and_origin_are_told() -> None:
    """What could not be told, how long it took, and what it was made with."""
    assert "Whether the names fit the base model" in words(elements("healthy", "#limits")[0])
    footer = words(elements("healthy", "footer")[0])
    for part in ("ev_01j9x7k2m4", "reading and measuring 0.84 s", "numpy 2.4.6", "2026-03-14T09"):
        assert part in footer


def test_every_term_of_the_tables_is_explained() -> None:
    """Who does not know a word finds it in the list of terms."""
    terms = " ".join(words(term).lower() for term in elements("healthy", "#glossary dt"))

    for term in ("rank", "effective rank", "energy", "k99", "cosine", "overlap", "robust z"):
        assert term in terms


@pytest.mark.parametrize("hostile", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_a_hostile_name_is_shown_and_does_nothing(hostile: str) -> None:
    """What looks like markup is text, and what would steer is an escape that one can read."""
    expected = " ".join(shortened(hostile, 72).split())

    assert expected in [words(code) for code in elements("hostile", ".finding code")]


def test_no_character_of_the_page_steers() -> None:
    """Neither control characters nor changes of writing direction are left anywhere."""
    assert [c for c in page("hostile") if c != "\n" and printable(c) != c] == []


def test_heat_map_cells_without_modules_are_not_drawn_as_zero() -> None:
    """A hole in the model is a dot, and a dash in the table."""
    circles = elements("healthy", "#fig-depth-1 circle.absent")
    cells = [words(cell) for cell in elements("healthy", "#fig-depth-1 tbody td")]

    assert len(circles) == 1
    assert cells.count("\N{EN DASH}") == 1


def test_text_encoders_have_a_heat_map_of_their_own() -> None:
    """Targets that share no block are drawn apart, instead of as one map full of holes."""
    names, blocks = ("attention", "text encoder"), ("IN 4", "OUT 0", "te1 0", "te1 1")
    energy = ((0.5, 0.3, None, None), (None, None, 0.15, 0.05))
    report = healthy()
    weights = replace(report.weights, heat_map=HeatMap(names, blocks, energy))
    plots = JustHTML(render(replace(report, weights=weights)), sanitize=False)

    titles = [words(title) for title in of(plots, "figure[id^=fig-depth] h3")]
    first = [words(cell) for cell in of(plots, "#fig-depth-1 tbody th, #fig-depth-1 tbody td")]
    assert titles == ["Depth of the model: IN, OUT", "Depth of the model: te1"]
    assert first == ["IN 4", "50.0 %", "OUT 0", "30.0 %"]
    assert not of(plots, "circle.absent")


def test_advice_that_leaves_the_verdict_alone_does_not_come_first() -> None:
    """A check that nobody asked for is an option, and the verdict's word is not said twice."""
    hint = replace(UNAVAILABLE, advice="Configure the base model.")
    report = replace(healthy(), findings=(hint,), headline="Pass: all is well.")
    banner = words(of(JustHTML(render(report), sanitize=False), ".verdict")[0])

    assert "All is well." in banner
    assert banner.count("Pass") == 1
    assert "Nothing has to be done. Optional: Configure the base model." in banner


def test_a_page_is_the_same_every_time() -> None:
    """The page depends on the report alone."""
    assert render(healthy()) == render(healthy())
    assert UNAVAILABLE.summary in page("healthy")
