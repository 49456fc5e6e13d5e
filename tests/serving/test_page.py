"""The page: built from its sources, closed to everything from elsewhere, and working in a browser."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from lifelong.errors import UsageError
from lifelong.online.serving.app import create_app
from lifelong.online.store.opening import open_store

ROOT = Path(__file__).parents[2]
SOURCES, BUILT = ROOT / "page", ROOT / "lifelong" / "online" / "serving" / "page"
FILES = {"/page/page.js": "text/javascript", "/page/docs.js": "text/javascript", "/page/page.css": "text/css"}
VIEWER = "/page/swagger-ui-bundle.js", "/page/swagger-ui.css"


def sources_hash():
    """As `page/vite.config.mjs` has it."""
    others = [SOURCES / name for name in ("index.html", "package-lock.json", "vite.config.mjs")]
    digest = hashlib.sha256()
    for path in sorted([*(path for path in (SOURCES / "src").rglob("*") if path.is_file()), *others]):
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def test_the_shipped_files_are_built_from_these_sources():
    assert (BUILT / "sources.sha256").read_text().strip() == sources_hash(), "run `make page`"


def test_the_picture_in_the_docs_is_of_this_page():
    pytest.importorskip("PIL", reason="Pillow is not installed (it comes with lifelong[dev])")
    from support.page_picture import page_of

    again = "PYTHONPATH=tests:. python -m support.page_picture docs/page.png"
    assert page_of(ROOT / "docs" / "page.png") == sources_hash(), again


@pytest.mark.slow
def test_building_again_gives_the_shipped_files(tmp_path):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    if not (SOURCES / "node_modules" / "vite").exists():
        pytest.skip("page/node_modules is absent: `make page` installs what builds the page")
    build = ["node", "node_modules/vite/bin/vite.js", "build", "--outDir", str(tmp_path), "--logLevel", "error"]
    subprocess.run(build, cwd=SOURCES, check=True, timeout=300)
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {path.relative_to(BUILT) for path in BUILT.rglob("*") if path.is_file()}
    assert all((tmp_path / name).read_bytes() == (BUILT / name).read_bytes() for name in names), "run `make page`"


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("/", {"page/page.js", "page/page.css"}),
        ("/docs", {"page/docs.js", "page/swagger-ui-bundle.js", "page/swagger-ui.css"}),
    ],
)
def test_nothing_is_loaded_from_elsewhere_and_no_script_is_in_a_page(client, path, files):
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", answer.text)
    sources = {source.removeprefix("./") for source in re.findall(r"""(?:src|href)=["']([^"']*)["']""", answer.text)}
    assert {source for source in sources if "page/" in source} == files
    assert all(source.startswith(("page/", "data:,", "docs", "#", "openapi.json")) or not source for source in sources)


@pytest.mark.parametrize(("path", "kind"), FILES.items())
def test_the_files_of_the_page_name_no_outside_address(client, path, kind):
    answer = client.get(path)
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-content-type-options"] == "nosniff"
    # Names of XML vocabularies look like addresses and are none.
    assert set(re.findall(r"https?://[\w./]*", answer.text)) <= {
        "http://www.w3.org/1999/xhtml",
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1998/Math/MathML",
    }


@pytest.mark.parametrize("path", ["/page/page.js", "/page/page.css", *VIEWER])
def test_the_files_of_the_page_are_packed_for_a_client_that_takes_it(client, path):
    packed, plain = (
        client.request("GET", path, headers={"accept-encoding": of}) for of in ("deflate, gzip", "gzip;q=0, br")
    )
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert packed.content == plain.content
    assert path in VIEWER or plain.content == (BUILT / path.removeprefix("/")).read_bytes()
    assert int(packed.headers["content-length"]) < 0.55 * int(plain.headers["content-length"])


def test_the_page_has_content_before_its_script(client):
    assert re.search(r'<div id="page">\s*<header>.*<h1>Who will choose what next\?</h1>', client.get("/").text)


def test_no_source_of_the_page_writes_markup():
    for path in (SOURCES / "src").rglob("*.ts*"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text()), path


@pytest.mark.parametrize("name", ["index.html", "sources.sha256", "..%2Findex.html", "%2e%2e/index.html"])
def test_other_files_are_not_given(client, name):
    assert client.get(f"/page/{name}").status_code == 404


def report_at(folder, script="'sha256-abc='"):
    folder.mkdir()
    policy = f"default-src 'none'; script-src {script}; style-src 'unsafe-inline'"
    page = f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{policy}"><title>Comparison</title>'
    (folder / "index.html").write_text(page)
    return folder


def test_a_report_is_shown_and_only_its_own_script_runs(make_client, tmp_path):
    report = report_at(tmp_path / "report")
    client = make_client(report=report)
    answer = client.get("/report")
    assert answer.text == (report / "index.html").read_text()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-abc=';" in policy and "frame-ancestors" in policy
    assert client.get("/v1/model").json()["report"] is True


def test_without_a_report_the_page_names_none(client):
    assert client.get("/v1/model").json()["report"] is False
    assert client.get("/report").json()["error"]["fix"] == "lifelong serve ... --set report=REPORT"


def test_a_report_that_is_none_or_comes_with_keys_is_refused(artifact, tmp_path):
    other = report_at(tmp_path / "other", script="'none'")
    with closing(open_store("memory://")) as store:
        for folder, found in ((tmp_path, "cannot read the report"), (other, "is no report")):
            with pytest.raises(UsageError, match=found):
                create_app(artifact, store, report=folder)
        with pytest.raises(UsageError, match="a report next to API keys"):
            create_app(artifact, store, report=report_at(tmp_path / "report"), api_keys=["secret"])
