"""Milvus over a connection that breaks: clear errors meanwhile, and afterwards no row twice and
none missing."""

from __future__ import annotations

import re
import threading
from importlib.util import find_spec

import numpy as np
import pytest

from soutu.errors import RemoteUnavailable
from soutu.store.base import NewCaption
from soutu.store.milvus.schema import IMAGES, VECTORS
from soutu.store.milvus.store import MilvusStore
from tests.cut_proxy import CutProxy
from tests.store_factories import paths_of
from tests.store_samples import DIM, card, pictures, unit

pytestmark = [
    pytest.mark.milvus,
    pytest.mark.skipif(
        not (find_spec("pymilvus") and find_spec("milvus_lite")), reason="needs the extra milvus"
    ),
]
COUNT, BATCH = 400, 50


@pytest.fixture
def server(tmp_path):
    """The port of a Milvus Lite server that speaks TCP, as a cluster does."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "server.db"))
    yield port
    server.stop(grace=0)
    database.close()


@pytest.fixture
def proxy(server):
    made = CutProxy(server)
    yield made
    made.close()


PATIENCE = 8.0  # seconds until a connection that stays away is given up; a busy machine is slower


def opened(port, *, timeout, name="photos"):
    address = f"milvus://127.0.0.1:{port}/{name}"
    return MilvusStore.create_or_open(address, card(), timeout=timeout)


def fill(store, *, on_fault=lambda: None):
    """Add all pictures and their captions; a batch that fails is given again, as the next index run
    would."""
    faults = []
    with store.writer() as writer:
        for start in range(0, COUNT, BATCH):
            batch, vectors = pictures(BATCH, start), unit(BATCH, DIM, seed=start)
            while True:
                try:
                    ids = writer.add_images(batch, vectors)
                    break
                except RemoteUnavailable as fault:
                    faults.append(fault)
                    on_fault()
        ids = [file.image_id for file in store.files().values()]
        writer.replace_captions([NewCaption(id_, f"说明 {i}") for i, id_ in enumerate(ids)])
        rows = writer.captions_without_vector()
        writer.set_caption_vectors([row.id for row in rows], unit(len(rows), DIM, seed=7))
    return faults


def everything(store):
    """All that can be asked, and how many rows Milvus holds for it."""
    query = unit(DIM, seed=9)
    images, captions = store.search_images(query, 10**4), store.search_captions(query, 10**4)
    tables = store._tables
    counts = []
    vectors = [tables.vectors(card(), kind) for kind in ("image", "caption")]
    for table in (tables.images, tables.files, tables.captions, *vectors):
        every = "key >= 0" if table.schema in (IMAGES, VECTORS) else 'key != ""'
        rows = [row["key"] for row in table.rows(every, ("key",))]
        assert len(rows) == len(set(rows))
        counts.append(len(rows))
    told = [(p, float(s)) for p, s in zip(paths_of(store, images), images.scores, strict=True)]
    return told, captions.ids.tolist(), captions.scores.tolist(), store.files(), counts


@pytest.fixture
def expected(server):
    with opened(server, timeout=10, name="uncut") as store:
        assert fill(store) == []
        return everything(store)


def test_a_cut_during_bulk_insert_leaves_no_row_twice_and_none_missing(server, proxy, expected):
    """The cable is cut at several places in the stream of rows, and joined while it is tried."""
    cuts = iter((40_000, 90_000, 150_000, 260_000))
    passed, due = 0, next(cuts)

    def cut_there(size):
        nonlocal passed, due
        passed += size
        if due is not None and passed >= due:
            due = next(cuts, None)
            proxy.cut()
            threading.Timer(0.3, proxy.join).start()

    with opened(proxy.port, timeout=60) as store:
        proxy.on_bytes = cut_there
        assert fill(store) == [], "each was tried again until it worked"
        assert due is None, "all the cuts were made"
        assert everything(store) == expected


def test_a_connection_that_stays_away_is_named_and_the_run_goes_on_after_it(proxy, expected):
    passed = 0

    def cut_once(size):
        nonlocal passed
        passed += size
        if passed > 60_000:
            proxy.on_bytes = lambda size: None
            proxy.cut()

    with opened(proxy.port, timeout=PATIENCE) as store:
        proxy.on_bytes = cut_once
        faults = fill(store, on_fault=proxy.join)
        assert [fault.code for fault in faults] == ["milvus-away"]
        assert f"milvus://127.0.0.1:{proxy.port}/photos" in str(faults[0])
        assert everything(store) == expected


def test_a_run_that_was_given_up_shows_nothing_of_the_batch_it_broke_off_in(proxy):
    """What readers see is the state after the last finished call; the next run makes it whole."""
    with opened(proxy.port, timeout=PATIENCE) as store:
        with store.writer() as writer:
            writer.add_images(pictures(BATCH), unit(BATCH, DIM, seed=0))

        torn = threading.Event()
        put = type(store._tables.files).put

        def put_and_tear(table, rows):
            put(table, rows)
            if table.schema.name == "changes":  # the last rows before the head moves
                torn.set()
                proxy.cut()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(store._tables.files), "put", put_and_tear)
            with pytest.raises(RemoteUnavailable), store.writer() as writer:
                writer.add_images(pictures(BATCH, BATCH), unit(BATCH, DIM, seed=BATCH))
        proxy.join()
        assert torn.is_set()
        assert store.state().images == BATCH
        assert len(store.search_images(unit(DIM), 10**4).ids) == BATCH
        assert len(store.files()) == BATCH
        with store.writer() as writer:
            assert writer.images_without_vector() == []
            writer.add_images(pictures(BATCH, BATCH), unit(BATCH, DIM, seed=BATCH))
        assert store.state().images == len(store.files()) == 2 * BATCH
        ids = store.search_images(unit(DIM), 10**4).ids
        vectors = store.image_vectors(sorted(ids.tolist()))
        assert len(np.unique(vectors, axis=0)) == 2 * BATCH


def test_a_cut_during_search_is_an_error_that_passes(proxy):
    with opened(proxy.port, timeout=PATIENCE) as store:
        with store.writer() as writer:
            writer.add_images(pictures(BATCH), unit(BATCH, DIM))
        before = store.search_images(unit(DIM), 10)
        proxy.cut()
        with pytest.raises(RemoteUnavailable, match=re.escape(f"127.0.0.1:{proxy.port}")) as fault:
            store.search_images(unit(DIM), 10)
        assert fault.value.code == "milvus-away"
        assert fault.value.exit_code == 6
        proxy.join()
        after = store.search_images(unit(DIM), 10)
        assert after.ids.tolist() == before.ids.tolist()
        np.testing.assert_array_equal(after.scores, before.scores)


def test_a_search_outlasts_a_short_cut(proxy):
    with opened(proxy.port, timeout=60) as store:
        with store.writer() as writer:
            writer.add_images(pictures(5), unit(5, DIM))
        proxy.cut()
        threading.Timer(0.5, proxy.join).start()
        assert len(store.search_images(unit(DIM), 10).ids) == 5


def test_nobody_there_is_said_within_the_patience():
    with pytest.raises(RemoteUnavailable, match=r"milvus://127\.0\.0\.1:1/photos"):
        MilvusStore.open("milvus://127.0.0.1:1/photos", timeout=0.5)
