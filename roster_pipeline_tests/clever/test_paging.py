"""Reading a collection page by page: its end, bad links, prefetch, threads (R3.2, R3.5)."""

import threading
from collections.abc import Callable, Generator

import pytest

from roster_pipeline.clever.errors import IncompletePullError
from roster_pipeline.clever.pull import DistrictPull, Page
from roster_pipeline.errors import RosterError, TransientError
from roster_pipeline.source.vocabulary import Collection

from .scripted import Reply, ScriptedClever, page, person, school

MakePull = Callable[..., DistrictPull]
SCHOOLS = "/v3.0/schools"


def next_page(cursor: str, base: str = "") -> str:
    return f"{base}{SCHOOLS}?limit=2&starting_after={cursor}"


def ids(pages: list[Page]) -> list[list[str]]:
    return [[record.id for record in found.records] for found in pages]


def prefetchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("clever-prefetch")]


def test_all_pages_up_to_the_one_without_next(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: the last page is the one without `next`; short and empty pages are not. All requests have the same parameters."""
    clever.script(
        "/v3.0/users",
        Reply(page(person("a"), person("b"), following="/v3.0/users?starting_after=b")),
        Reply(page(person("c"), following="/v3.0/users?starting_after=c&limit=7&role=teacher")),
        Reply(page(following="/v3.0/users?starting_after=d")),
        Reply(page()),
    )
    with make_pull() as pull:
        pages = list(pull.pages(Collection.STUDENTS))
    assert ids(pages) == [["a", "b"], ["c"], [], []]
    assert [found.number for found in pages] == [1, 2, 3, 4]
    assert pull.stats.pages == {Collection.STUDENTS: 4}
    base = {"limit": "2", "role": "student"}
    assert [seen.query for seen in clever.seen[1:]] == [base, *(base | {"starting_after": cursor} for cursor in "bcd")]
    assert len({seen.port for seen in clever.seen[1:]}) == 1, "the connection is kept alive"


def test_every_collection_reads_its_own_resource(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: schools, terms, courses, sections, and users by role, in this order; v3.1 if it is configured."""
    for resource in ("schools", "terms", "courses", "sections", "users"):
        clever.script(f"/v3.1/{resource}", Reply(page()))
    with make_pull(clever_api_version="v3.1") as pull:
        for collection in Collection:
            assert ids(list(pull.pages(collection))) == [[]]
    assert clever.paths() == [f"/v3.1/{name}" for name in ("schools", "terms", "courses", "sections", *["users"] * 4)]
    assert [seen.query["role"] for seen in clever.seen if seen.path.endswith("users")] == ["student", "teacher", "staff", "district_admin"]


def test_an_absolute_next_on_the_same_host_is_followed(clever: ScriptedClever, make_pull: MakePull) -> None:
    """Some servers send complete URLs."""
    clever.script(SCHOOLS, Reply(page(school("a"), following=next_page("a", clever.url))), Reply(page(school("b"))))
    with make_pull() as pull:
        assert ids(list(pull.pages(Collection.SCHOOLS))) == [["a"], ["b"]]


def test_a_base_url_with_a_path(clever: ScriptedClever, make_pull: MakePull) -> None:
    """Behind a proxy, links may or may not have the proxy's own path."""
    clever.script(
        f"/proxy{SCHOOLS}",
        Reply(page(school("a"), following=next_page("a"))),
        Reply(page(school("b"), following=f"/proxy{next_page('b')}")),
        Reply(page(school("c"))),
    )
    with make_pull(clever_api_url=f"{clever.url}/proxy") as pull:
        assert ids(list(pull.pages(Collection.SCHOOLS))) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/v3.0/schools?starting_after=a",
        "//evil.example/v3.0/schools?starting_after=a",
        "/v2.0/schools?starting_after=a",
        "/v3.0/sections?starting_after=a",
        "/v3.0/schools/../sections?starting_after=a",
        "/v3.0/schools",
        "/v3.0/schools?starting_after=",
        "/v3.0/schools?ending_before=a",
        "",
    ],
)
def test_links_that_lead_elsewhere_end_the_pull(link: str, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: the link is not requested, and the pages before it do not count as a complete collection."""
    body = page(school("a"))
    body["links"].append({"rel": "next", "uri": link})
    clever.script(SCHOOLS, Reply(body), Reply(page()))
    with make_pull() as pull, pytest.raises(IncompletePullError) as caught:
        list(pull.pages(Collection.SCHOOLS))
    assert isinstance(caught.value, TransientError)
    assert clever.paths() == [SCHOOLS]
    assert "evil" not in str(caught.value)


def test_two_different_next_links_end_the_pull(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: nobody can know which of the two leads to the end."""
    body = page(school("a"), following=next_page("a"))
    body["links"].append({"rel": "next", "uri": next_page("b")})
    clever.script(SCHOOLS, Reply(body))
    with make_pull() as pull, pytest.raises(IncompletePullError, match="two different"):
        list(pull.pages(Collection.SCHOOLS))


@pytest.mark.parametrize("records", ["ab", "abc"], ids=["full", "more than asked for"])
@pytest.mark.parametrize("first", [True, False], ids=["first page", "later page"])
def test_a_full_page_without_next_is_not_the_end(records: str, first: bool, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: Clever sends `next` on every full page. Where nothing follows, it leads to an empty page."""
    full = Reply(page(*map(school, records)))
    clever.script(SCHOOLS, *([full] if first else [Reply(page(school("0"), following=next_page("0"))), full]))
    with make_pull() as pull, pytest.raises(IncompletePullError, match="full and has no next link") as caught:
        list(pull.pages(Collection.SCHOOLS))
    assert isinstance(caught.value, TransientError)
    clever.script(SCHOOLS, Reply(page(*map(school, "ab"), following=next_page("b"))), Reply(page()))
    with make_pull() as pull:
        assert ids(list(pull.pages(Collection.SCHOOLS))) == [["a", "b"], []]


@pytest.mark.parametrize("rel", ["following", "Next", "last", "", "NEXT"])
@pytest.mark.parametrize("records", ["a", ""], ids=["short", "empty"])
def test_a_link_of_an_unknown_name_ends_the_pull(rel: str, records: str, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: it may be `next` under a new name, so the page is not taken for the last one, however short it is."""
    body = page(*map(school, records))
    body["links"].append({"rel": rel, "uri": next_page("a")})
    clever.script(SCHOOLS, Reply(body), Reply(page()))
    with make_pull() as pull, pytest.raises(IncompletePullError, match="unknown name"):
        list(pull.pages(Collection.SCHOOLS))
    assert clever.paths() == [SCHOOLS]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_clevers_own_count_is_compared(count: int, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: fewer records may have been removed since they were read. One that no page had is missing."""
    clever.script(SCHOOLS, Reply(page(school("a"))))
    clever.count = Reply({"count": count, "links": []})
    with make_pull() as pull:
        pages = pull.pages(Collection.SCHOOLS)
        assert ids([next(pages)]) == [["a"]]
        if count < 2:
            assert next(pages, None) is None
        else:
            with pytest.raises(IncompletePullError, match="after 1 records, but Clever counts 2"):
                next(pages)
    assert clever.counted[-1].query == {"count": "true", "limit": "1"}


@pytest.mark.parametrize("answer", [{"links": []}, page(), {"count": None}, {"count": "2"}, {"count": -1}, {"count": 1.5}, 400, 404, 501])
def test_a_clever_that_does_not_count(answer: object, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: the answer to `count=true` is recorded of v1 only. Without one, the links alone decide."""
    clever.script("/v3.0/users", Reply(page(person("a"))))
    clever.count = Reply(status=answer) if isinstance(answer, int) else Reply(answer)
    with make_pull() as pull:
        assert ids(list(pull.pages(Collection.STUDENTS))) == [["a"]]
    assert clever.counted[-1].query == {"count": "true", "limit": "1", "role": "student"}


def test_a_cursor_loop_ends_the_pull(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: a -> b -> a is noticed, and not retried in this pull."""
    clever.script(
        SCHOOLS,
        Reply(page(school("a"), following=next_page("a"))),
        Reply(page(school("b"), following=next_page("b"))),
        Reply(page(school("a"), following=next_page("a"))),
        Reply(page()),
    )
    with make_pull() as pull, pytest.raises(IncompletePullError, match="back to a page"):
        list(pull.pages(Collection.SCHOOLS))
    assert len(clever.paths()) == 3


def test_a_fault_on_a_later_page_is_not_an_end(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: the pages before it are yielded, then the iterator raises. Its thread has ended."""
    clever.script(SCHOOLS, Reply(page(school("a"), following=next_page("a"))), Reply(status=500))
    with make_pull() as pull:
        pages = pull.pages(Collection.SCHOOLS)
        assert ids([next(pages)]) == [["a"]]
        with pytest.raises(TransientError, match="500"):
            next(pages)
        assert prefetchers() == []
        assert next(pages, None) is None


def test_the_next_page_is_fetched_while_this_one_is_in_use_and_only_that_one(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.5: one page ahead, never two. Nothing is requested before the caller needs the first page."""
    clever.script(
        SCHOOLS,
        Reply(page(school("a"), following=next_page("a"))),
        Reply(page(school("b"), following=next_page("b"))),
        Reply(page(school("c"))),
    )
    with make_pull() as pull:
        pages = pull.pages(Collection.SCHOOLS)
        assert clever.paths() == []
        next(pages)
        assert clever.wait_for_requests(SCHOOLS, 2)
        next(pages)
        assert clever.wait_for_requests(SCHOOLS, 3)
        assert len(ids(list(pages))) == 1
    assert len(clever.paths()) == 3
    assert prefetchers() == []


def test_two_pages_are_never_ahead(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.5: however long the caller takes, the page after the next one is not requested. Another request comes first."""
    clever.script(SCHOOLS, *[Reply(page(school(name), following=next_page(name))) for name in "abcdef"], Reply(page()))
    clever.script("/v3.0/terms", Reply(page()))
    with make_pull() as pull:
        pages = pull.pages(Collection.SCHOOLS)
        assert isinstance(pages, Generator)
        next(pages)
        assert clever.wait_for_requests(SCHOOLS, 2)
        list(pull.pages(Collection.TERMS))  # one more round trip over the same connection, so a third request would have come
        assert clever.paths().count(SCHOOLS) == 2
        pages.close()


def test_closing_early_leaves_no_thread_and_no_retries(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.5: the page that is being fetched is not retried."""
    gate = threading.Event()
    clever.script(SCHOOLS, Reply(page(school("a"), following=next_page("a"))), Reply(status=500, gate=gate))
    with make_pull(clever_max_attempts=1000) as pull:
        pages = pull.pages(Collection.SCHOOLS)
        assert isinstance(pages, Generator)
        next(pages)
        assert clever.wait_for_requests(SCHOOLS, 2)
        threading.Timer(0.2, gate.set).start()
        pages.close()
    assert prefetchers() == []
    assert len(clever.paths()) == 2


def test_an_error_in_the_caller_ends_the_thread(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.5: if the caller raises, the thread still ends with the loop."""
    clever.script(SCHOOLS, Reply(page(school("a"), following=next_page("a"))), Reply(page(school("b"))))

    def consume(pull: DistrictPull) -> None:
        for _ in pull.pages(Collection.SCHOOLS):
            raise RosterError("the caller's own")

    with pytest.raises(RosterError, match="own"), make_pull() as pull:
        consume(pull)
    assert prefetchers() == []


def test_the_shape_is_checked_after_the_last_page(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R4.2: the check comes after all pages, so if the loop ends without an error, the collection is good."""
    clever.script(SCHOOLS, Reply(page(school("a", name=1), following=next_page("a"))), Reply(page(school("b", name=2))))
    with make_pull() as pull:
        pages = pull.pages(Collection.SCHOOLS)
        assert [finding.rule for found in (next(pages), next(pages)) for finding in found.findings] == ["name_type", "name_type"]
        with pytest.raises(RosterError, match="shape of Clever's data changed"):
            next(pages)
