"""What lies in savepoints can still be read: bytes that an earlier commit wrote, and their meaning.

The whole of a stream's state is kept in `tests/golden/savepoint`; these say which part of it was changed. A form that
must change gets a new version number, and the old bytes stay here for as long as they are to be read.
"""

from __future__ import annotations

import base64
import zlib

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from io_connectors.spans import Span, SpanCoder
from tests.bag import Bag
from transforms import open_windows, shard_log
from transforms.alerts import Alert
from transforms.batch import TransactionBatchCoder, from_rows, to_rows
from transforms.hashing import stable_hash
from transforms.packing import pack, unpack
from transforms.struct_coder import StructCoder
from transforms.suppress import example_alert

BATCH = (
    rb"c-o~?y-or_5S}}Z^MXXLAcVrgf`Sq|OQIB(6qwNA1y;F)`^nv6Frl!t^Z_g^EqMSRfCunFd;-"
    rb"szyFEC^fFw>byEprN^D(<KXaM>=K?`*N8^|h91ry3(;TM`_U<?>pxEgAO6tggAsR2Bq_t2~8A9((TzCiCPZu=`qP^d!sC+dvs5Z("
    rb"3fL@bBW^#sV2r>A%c{kne%(=1o#xl~6O#IAG$pW<#pJkUD0yk<FN%4rmGO!PRIMI!<5gq&5zGdYj;sUrn_FOl=PqXst~-"
    rb"bT)BOz}$9K<CY5lhZ2X&|5lQF!SZmbNwL7bgJkFsa}4Eak9Ase={i}%yp(icMLt`J@4R-"
    rb"X0Z%B5fOKRy!T|&i)MjK{S^1YSFK2EGF8`kPi&~+xrr6iZEQ6++3y!MkEqtj@ndI1ZK4toGuAlG-"
    rb"5h7Awtkzsn!IYN3?(D&%N$@`WdjjI&E|`i&8!9+YruB1*siPHW;~nmxMqXlr)tmZXtB7>_~%S-Tb%PdOz(=tJ(k~N_<-"
    rb"R9rhilTe~?WWf5P}7!$XGW^Q1A}zOnXCeBU^q0ePn0`QrEoceG`W`gQoz=q)|r1<}KA>>D%Pf71"
)
#: The same with a long id: large enough to be compressed.
LONG_BATCH = (
    rb"c-muPU|_2F4+I5F3=9GcAi%}I!@$PC%D@3+0RbZmkk0_*aR5mcD9Hep;{fW}z{tSR0K@@6%mc(%fZ{8FxCV$_plS{N{r?X%hzn%C3{(sRxPdq`"
    rb"FFm!mB)%jwH<h6Ttd0pR&kV$&A<hgr5WP(3dO_|e$S=+;$;{6K@m>Cd)G;tR0Eq<<J**%-5=eU3fVeonv?w{1fuRGa<^)6?8@f6Wos(FS3Sw^n"
    rb"s`-G&4VlI9X+?>pDIop{s2f1yD*q9BG?4Uw!ZI;8zcjBTJ~uNjzX)Ou4-m71&4c+N<v+p?=wVipS_IUam=m9w!VmydHvx~@<kI4j{M^(cklGrc"
    rb"x;_69aiM~w78IYUWvO}4r~tc(4I1m{aU#GV0u*Nhx)|ge0cg5`*pF-`AIPmmiFw6|$)IQgIRPlg0+(lC2o%uRs{c1ZARw2Gp~*)<t--SOn6Uw~"
    rb"vBBmSAv^~{739+r*^;-^v?X-2^<4h-OX-AK?Zx|=%5pMlypxT^IVJtr`4j}!7tYd9^$O0ad;3W*ds_O*HJjWjr<k0ayhL}2<{H<yC$857gj&)9"
    rb"s^4sUcH?4%w({JBSrwbLtR!bowpgt6VD34s2|HitNG$kdb6(hUMWV(wlcjH@FE~##6iN_a@LHRoHjDGL&brwD=dad(nSG44&|=HHWnQKFaRM5D"
    rb"liU4rjFWl|92N%T?D%l-S$_Z7H4}nLuePiN00VQ)^#"
)
ALERT = (
    "8ca8616c6572745f6964a26131ae7472616e73616374696f6e5f6964a26131aa6576656e745f74696d65b9313937302d3031"
    "2d30315430303a30303a30372b30303a3030ab637573746f6d65725f6964a3353936ab7465726d696e616c5f6964c0ac616d"
    "6f756e745f6d696e6f7264a573636f7265cb3feccccccccccccda86465636973696f6ea6726576696577a7726561736f6e73"
    "90a86d6f64656c5f6964a56d6f64656cab666561747572655f736574a86665617475726573a46c617465c2"
)
#: What one bundle changed: marks, and one matrix of rows.
ENTRY = "929a02020304050607c4017608c391c434" + "02000000" + "".join(f"{n:02x}00000000000000" for n in range(6))
#: Marks of two windows, and the counts of one cell in one of them: by version 1, and since.
WINDOWS = "929701020304c30592943c01c3c2947800c2c3c4203c00000000000000070000000000000008000000000000000900000000000000"
PACKED_WINDOWS = "929702" + WINDOWS[6:38] + "c42404000000" + WINDOWS[42:]


def test_a_batch() -> None:
    """Rows that wait."""
    row = {"transaction_id": "t1", "event_time": 1_000_000, "customer_id": "c", "amount_minor": 5716}
    found = TransactionBatchCoder().decode(zlib.decompress(base64.b85decode(BATCH)))
    assert to_rows(found) == to_rows(from_rows([row]))


def test_a_compressed_batch() -> None:
    """Columns of some length are compressed, behind the length they have without."""
    row = {"transaction_id": "t" * 20_000, "event_time": 1_000_000, "customer_id": "c", "amount_minor": 5716}
    encoded = zlib.decompress(base64.b85decode(LONG_BATCH))
    assert (encoded[0], len(encoded) < 2_000) == (2, True)
    assert to_rows(TransactionBatchCoder().decode(encoded)) == to_rows(from_rows([row]))
    assert TransactionBatchCoder().encode(from_rows([row]))[0] == 2


def test_a_batch_of_a_later_version_is_refused() -> None:
    """With its version and what can be done."""
    with pytest.raises(ValueError, match="coder version 3 cannot be read by version 2: restore with the release"):
        TransactionBatchCoder().decode(b"\x03" + zlib.decompress(base64.b85decode(BATCH))[1:])


def test_what_a_shard_keeps() -> None:
    """Marks, and two columns and three rows of little-endian numbers behind the number of columns."""
    found = msgspec.msgpack.decode(bytes.fromhex(ENTRY), type=shard_log.Entry)
    assert (found.marks.schema_version, found.marks.frontier, found.marks.version) == (2, 2, b"v")
    assert (found.marks.oldest, found.marks.held) == (8, True)
    assert [unpack(packed).tolist() for packed in found.rows] == [[[0, 1, 2], [3, 4, 5]]]
    assert pack(np.arange(6, dtype=np.int64).reshape(2, 3)) == found.rows[0]


def test_a_matrix_of_many_columns() -> None:
    """Narrow rows: the number of rows with a mark, that of columns; of each row its least, its unit, bytes a value."""
    times = 1_700_000_000_000_000 + np.arange(256) * 1_000_000
    matrix = np.stack([np.full(256, -1), times, np.arange(256) - 3])
    head = "0300008000010000" + "ffffffffffffffff010000" + "00401e18240a0600e80304" + "fdffffffffffffff010001"
    packed = bytes.fromhex(head) + (np.arange(256, dtype="<u4") * 1000).tobytes() + bytes(range(256))
    assert pack(matrix) == packed
    assert unpack(packed).tolist() == matrix.tolist()


def test_what_is_kept_of_windows() -> None:
    """Marks, and rows of window start, cell, count, amount: plain in version 1, and since then packed."""
    found = msgspec.msgpack.decode(bytes.fromhex(WINDOWS), type=open_windows.Entry)
    assert found.marks == open_windows.Marks(
        schema_version=1,
        frontier=2,
        hold=3,
        forget=4,
        early=True,
        rewrite_at=5,
        windows=[open_windows.OpenWindow(60, 1, closed=True), open_windows.OpenWindow(120, changed=True)],
    )
    for written in (WINDOWS, PACKED_WINDOWS):
        bag = Bag()
        bag.add(bytes.fromhex(written))
        log = open_windows.WindowLog(bag)
        assert log.marks == msgspec.structs.replace(found.marks, schema_version=2)
        assert log.counts_of([60]).tolist() == [[60, 7, 8, 9]]


def test_a_span() -> None:
    """What a reader has left, and one of a later version."""
    written = bytes.fromhex("0100000000000000070000000000000009")
    assert SpanCoder().decode(written) == Span(7, 9)
    with pytest.raises(ValueError, match="coder version 2 cannot be read"):
        SpanCoder().decode(b"\x02" + written[1:])


def test_an_alert() -> None:
    """One that waits to be sent or suppressed; fields have names, so that more may come."""
    assert StructCoder(Alert).decode(bytes.fromhex(ALERT)) == example_alert("a1", 7_000_000)


def test_where_ids_lie() -> None:
    """The hash that says which shard an entity's state is in, and under which number its rows lie there."""
    assert [int(each) for each in stable_hash(pa.array(["596", "c1"]))] == [17200905654499193571, 9592619915129918108]
