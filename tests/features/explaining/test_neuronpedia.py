"""Neuronpedia's bucket against a small server of the same layout: pages, failures, resumed downloads, damage."""

import gzip
import hashlib
import socket

import pytest

from src.errors import StrataError
from src.features.explaining.explanations import explanations_document, gather_rows, read_rows
from src.features.explaining.neuronpedia import Bucket, RemoteFile, listed_files
from src.features.explaining.web import Patience, WebError
from tests.fixtures.web_servers import answer, bucket_server, json_lines

__all__ = ["bucket_server"]

PREFIX = "v1/gemma-2-2b/6-gemmascope-res-16k/explanations/"
ROWS = [
    [{"index": "7", "description": "first"}, {"index": "1", "description": "one"}],
    [{"index": "9", "description": None}],
    [{"index": "7", "description": "second", "explanationModelName": "gpt-4o-mini"}],
    [{"index": "3", "description": "three"}],
    [{"index": "7", "description": "third"}],
]


@pytest.fixture
def bucket(bucket_server):
    for number, rows in enumerate(ROWS):
        bucket_server.files[f"{PREFIX}batch-{number}.jsonl.gz"] = json_lines(rows)
    bucket_server.files["v1/gemma-2-2b/6-gemmascope-res-16k/features/batch-0.jsonl.gz"] = json_lines([{}])
    bucket_server.files[f"{PREFIX}readme.txt"] = b"no rows"
    return bucket_server


@pytest.fixture
def waits():
    return []


@pytest.fixture
def client(bucket, waits):
    return Bucket(bucket.url, Patience(attempts=3, timeout=5), waits.append)


def listed(client, folder):
    return listed_files(client, "gemma-2-2b", "6-gemmascope-res-16k", folder)


def fetched(client, folder):
    files, _ = listed(client, folder)
    return [client.download(file, folder) for file in files]


def test_all_pages_are_listed_and_all_files_read(client, bucket, tmp_path):
    paths = fetched(client, tmp_path)
    assert [path.name for path in paths] == [f"{PREFIX.replace('/', '_')}batch-{n}.jsonl.gz" for n in range(5)]
    assert sum("list-type" in path for path, _ in bucket.requests) == 3
    found = gather_rows(paths, [3, 7, 8])
    assert [row["description"] for row in found.rows[7]] == ["third", "second", "first"]
    assert [it.text for it in found.explanations(7)] == ["third", "second", "first"]
    assert found.explanations(7)[1].source == "gpt-4o-mini"
    document = explanations_document(found, [7, 8, 3], {"sae_id": "x"})
    assert [row["index"] for row in document["data"]] == ["7", "3"]
    assert document["data"][0]["description"] == "third"
    assert [row["description"] for row in document["data"][0]["other_explanations"]] == ["second", "first"]
    assert document["meta"] == {"sae_id": "x", "num_features": 3, "num_explained": 2}


def test_the_cache_serves_a_second_run_and_a_changed_file_is_fetched_anew(client, bucket, tmp_path):
    fetched(client, tmp_path)
    n_requests = len(bucket.requests)
    fetched(client, tmp_path)
    assert all("list-type" in path for path, _ in bucket.requests[n_requests:])
    key = f"{PREFIX}batch-3.jsonl.gz"
    bucket.files[key] = json_lines([{"index": "3", "description": "new"}])
    assert gather_rows(fetched(client, tmp_path), [3]).explanations(3)[0].text == "new"
    # damage of the same size is noticed by the MD5 in the etag
    path = tmp_path / key.replace("/", "_")
    path.write_bytes(bytes(len(bucket.files[key])))
    assert gather_rows(fetched(client, tmp_path), [3]).explanations(3)[0].text == "new"


def test_reading_may_stop_when_each_feature_has_a_row(client, tmp_path):
    files, _ = listed(client, tmp_path)
    found = gather_rows((client.download(file, tmp_path) for file in files), [1, 7], stop_when_found=True)
    assert (found.files_read, [row["description"] for row in found.rows[7]]) == (1, ["first"])
    assert len(list(tmp_path.glob("*.jsonl.gz"))) == 1


def test_busy_servers_are_asked_again_with_growing_waits(client, bucket, waits, tmp_path):
    bucket.failures[:] = [answer(503), answer(500)]
    assert len(fetched(client, tmp_path)) == 5
    assert len(waits) == 2
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    bucket.failures[:] = [answer(429, Retry_After="7"), answer(503, Retry_After="0")]
    listed(client, tmp_path)
    assert waits[2:] == [7, 0]


def test_a_server_that_stays_busy_or_asks_for_hours_is_an_error(client, bucket, waits, tmp_path):
    bucket.failures[:] = [answer(503)] * 3
    with pytest.raises(StrataError, match=r"HTTP 503.*3 attempts.*sae_path=null"):
        listed(client, tmp_path)
    waits.clear()
    bucket.failures[:] = [answer(429, Retry_After="7200")]
    with pytest.raises(StrataError, match="come back in 7,200 seconds"):
        listed(client, tmp_path)
    bucket.failures[:] = [answer(403)]
    with pytest.raises(StrataError, match="HTTP 403"):
        listed(client, tmp_path)
    assert waits == []


def test_a_download_that_breaks_off_is_continued(client, bucket, tmp_path):
    bucket.cut[:] = [30, 20]
    paths = fetched(client, tmp_path)
    ranges = [headers.get("Range") for path, headers in bucket.requests if "batch-0" in path]
    assert ranges == [None, "bytes=30-", "bytes=50-"]
    assert paths[0].read_bytes() == bucket.files[f"{PREFIX}batch-0.jsonl.gz"]
    assert not list(tmp_path.glob("*.part*"))


def test_what_a_killed_process_left_is_continued_unless_the_file_is_another_by_now(client, bucket, tmp_path):
    key = f"{PREFIX}batch-0.jsonl.gz"
    content = bucket.files[key]
    part = tmp_path / f"{key.replace('/', '_')}.part"
    for etag, expected in ((hashlib.md5(content).hexdigest(), "bytes=40-"), ("0" * 32, None)):
        part.write_bytes(content[:40])
        part.with_name(f"{part.name}.etag").write_text(etag)
        path = client.download(listed(client, tmp_path)[0][0], tmp_path)
        assert bucket.requests[-1][1].get("Range") == expected
        assert path.read_bytes() == content
        path.unlink()


def test_other_contents_than_the_listing_says_are_refused(client, bucket, tmp_path):
    file = listed(client, tmp_path)[0][0]
    for wrong in (bytes(file.size), bytes(file.size + 5)):
        bucket.files[file.key] = wrong
        with pytest.raises(WebError, match="the listing says"):
            client.download(file, tmp_path)
    assert not list(tmp_path.glob("*.jsonl.gz"))
    with pytest.raises(StrataError, match="explanations are smaller"):
        client.download(RemoteFile("v1/huge", 10**12, "x"), tmp_path)


def test_missing_names_are_answered_with_the_nearest(client, tmp_path):
    with pytest.raises(StrataError, match=r"no v1/gemma-2-2c \(key neuronpedia.model\).*gemma-2-2b"):
        listed_files(client, "gemma-2-2c", "6-gemmascope-res-16k", tmp_path)
    with pytest.raises(StrataError, match=r"no v1/gemma-2-2b/6-res-16k \(key sae_path\).*6-gemmascope-res-16k"):
        listed_files(client, "gemma-2-2b", "6-res-16k", tmp_path)


def test_without_a_network_the_cache_serves_if_it_is_whole(client, bucket, tmp_path):
    fetched(client, tmp_path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        offline = Bucket(f"http://127.0.0.1:{unused.getsockname()[1]}", client.patience, client.sleep)
        files, from_cache = listed(offline, tmp_path)
        assert from_cache
        assert len(files) == 5
        next(tmp_path.glob("*batch-2.jsonl.gz")).unlink()
        with pytest.raises(StrataError, match=r"can't be read: http.*refused.*Check the network"):
            listed(offline, tmp_path)


@pytest.mark.parametrize(
    "page", [b"<html>log in</html>", b"not xml", b"<ListBucketResult><Contents/></ListBucketResult>"]
)
def test_answers_that_are_no_listing_are_told(client, bucket, tmp_path, page):
    bucket.failures[:] = [answer(200, page)]
    with pytest.raises(StrataError, match="something else than the listing of a bucket"):
        listed(client, tmp_path)


def test_entities_are_not_expanded(client, bucket, tmp_path):
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><ListBucketResult><Name>&b;</Name></ListBucketResult>'
    bucket.failures[:] = [answer(200, bomb)]
    with pytest.raises(StrataError, match="document type"):
        listed(client, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip at all", "no whole gzip file"),
        (json_lines([{"index": "1", "description": "x" * 5000}])[:-20], "no whole gzip file"),
        (gzip.compress(b"[1]\n"), "line 1 is no JSON object"),
        (gzip.compress(b'{"index": "1"}\n{"index": \n'), "line 2 is no JSON"),
        (json_lines([{"description": "no index"}]), "no feature's index"),
        (json_lines([{"index": "1", "description": ["a"]}]), "description that is no text"),
        (gzip.compress(b'{"index": "1", "description": "' + b"a" * (5 * 2**20)), "swells"),
        (gzip.compress((b" " * 2**20 + b"\n") * 70, compresslevel=1), "swells"),
    ],
    ids=["no gzip", "truncated", "list", "cut line", "no index", "no text", "long line", "bomb"],
)
def test_files_that_are_not_what_they_should_be_are_refused(tmp_path, content, message):
    path = tmp_path / "batch-0.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(StrataError, match=message):
        list(read_rows(path))


def test_halves_of_surrogate_pairs_can_be_written(tmp_path):
    path = tmp_path / "batch-0.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"index": "1", "description": "a\\ud800b \\ud83d\\ude00", "score": NaN}\n'))
    row = next(read_rows(path))
    assert row == {"index": "1", "description": "a?b \U0001f600", "score": None}
