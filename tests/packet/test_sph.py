from __future__ import annotations

import io
import itertools
import os
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaphone.errors import InputError
from semaphone.packet.bitstream import PacketError
from semaphone.packet.format import SCHEDULES, PacketFormat
from semaphone.packet.sph import SphHeader, SphReader, SphRecord, SphWriter
from semaphone.packet.sph_header import parse_header, serialize_header

HEADER = SphHeader("nano", "0123456789abcdef", 16000, PacketFormat(8, 2048), None)
RECORDS = [SphRecord(0, b"\x1f\x50"), SphRecord(1, b"\x9f"), SphRecord(300, b"abc")]
GOLDEN_HEADER = (
    "5350484e010033"  # SPHN, version 1, 51 bytes follow
    "00003e80ffffffffffffffff000030d408000008000001"  # 16000 Hz, length unknown, 12.5 Hz, 8 x 2048, split, 1 chunk
    "00000000000004"  # copy distance, spacing, flags, constant size; length of the name
    "6e616e6f10"  # nano, length of the fingerprint
    "30313233343536373839616263646566"
)

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)
headers = st.builds(
    SphHeader,
    texts,
    texts,
    st.integers(1000, 384_000),
    st.builds(
        lambda schedule, n, k, report, size: PacketFormat.named(schedule, n, k, loss_report=report, constant_size=size),
        st.sampled_from(SCHEDULES),
        st.integers(1, 32),
        st.integers(2, 65536),
        st.booleans(),
        st.integers(0, 1200),
    ),
    st.one_of(st.none(), st.integers(0, 2**64 - 2)),
)


def write(path, records=RECORDS, num_samples: int | None = 2560, header=HEADER) -> bytes:
    with SphWriter(path, header) as out:
        for record in records:
            out.write(record.sequence, record.payload)
        out.finish(num_samples)
    return path.read_bytes()


def read(path) -> list[SphRecord]:
    with SphReader(path) as stream:
        return list(stream)


def sentence(path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


@given(headers)
def test_headers_parse_and_serialize(header) -> None:
    data = serialize_header(header)
    assert parse_header(data) == header
    assert len(serialize_header(replace(header, num_samples=None))) == len(data)


def test_files_round_trip(tmp_path) -> None:
    write(tmp_path / "a.sph")
    with SphReader(tmp_path / "a.sph") as stream:
        assert stream.header == replace(HEADER, num_samples=2560)
        assert stream.num_samples == 2560
        assert list(stream) == RECORDS
    assert os.listdir(tmp_path) == ["a.sph"]


@given(st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=24)), max_size=30))
def test_any_packets_round_trip(tmp_path_factory, gaps) -> None:
    path = tmp_path_factory.getbasetemp() / "any.sph"
    sequence, records = -1, []
    for gap, payload in gaps:
        sequence += gap + 1
        records.append(SphRecord(sequence, payload))
    write(path, records)
    assert read(path) == records


def test_golden_bytes(tmp_path) -> None:
    """The bytes of docs/wire-format.md; they must never change."""
    header = serialize_header(HEADER)
    assert header.hex()[:-8] == GOLDEN_HEADER
    written = write(tmp_path / "a.sph", num_samples=None).hex()
    assert written[len(header.hex()) :] == GOLDEN_BODY


GOLDEN_BODY = (
    "02001f502d7c48fd"  # size, gap, payload, CRC-32
    "01009f423c2544"
    "03aa0261626339a6f2d8"  # 298 packets are missing before this one
    "00ffffffffffffffffb7f054fc"  # the end: length unknown
)


def test_a_history_is_schedule_3_and_its_horizon_a_copy_distance() -> None:
    form = PacketFormat.named("history", 8, 2048, copy_distance=5)
    data = serialize_header(replace(HEADER, format=form))
    assert data[:-4].hex() == GOLDEN_HEADER.replace("00000800000100000", "00000800030105000")
    assert parse_header(data).format == form


def test_to_a_pipe_the_length_comes_at_the_end(capfdbinary, monkeypatch) -> None:
    with SphWriter("-", HEADER) as out:
        out.write(0, b"abc")
        out.finish(1000)
    data = capfdbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with SphReader("-") as stream:
        assert stream.num_samples is None
        assert list(stream) == [SphRecord(0, b"abc")]
        assert stream.num_samples == 1000


def test_a_failure_leaves_nothing(tmp_path) -> None:
    def stop_half_way() -> None:
        with SphWriter(tmp_path / "a.sph", HEADER) as out:
            out.write(0, b"abc")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert os.listdir(tmp_path) == []


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path) -> None:
    whole = write(tmp_path / "a.sph")
    path = tmp_path / "b.sph"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert sentence(path).startswith(("b.sph is ", "b.sph cannot be read: it is "))
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert sentence(path).startswith("b.sph ")


def test_records_left_out_or_moved_are_noticed(tmp_path) -> None:
    parts = [write(tmp_path / "a.sph", RECORDS[:n]) for n in range(3)]
    start, ends = len(serialize_header(HEADER)), [len(part) - 13 for part in parts]
    first, second = parts[2][start : ends[1]], parts[2][ends[1] : ends[2]]
    for body in (second, second + first, first + first):
        (tmp_path / "b.sph").write_bytes(parts[2][:start] + body + parts[2][ends[2] :])
        assert "is damaged: the checksum of record " in sentence(tmp_path / "b.sph")


def test_exact_texts(tmp_path) -> None:
    path = tmp_path / "b.sph"

    def text(data: bytes) -> str:
        path.write_bytes(data)
        return sentence(path)

    whole = write(tmp_path / "a.sph")
    start = len(serialize_header(HEADER))
    assert text(b"") == "b.sph is empty."
    assert text(b"RIFF....WAVEfmt ") == "b.sph cannot be read: it is not a stream of Semaphone."
    assert text(b"NIST_1A\n   1024\n") == "b.sph is a NIST SPHERE recording, not a stream of Semaphone."
    assert text(whole[:20]) == "b.sph cannot be read: it is cut short within its header."
    assert text(b"SPHN\2" + whole[5:]).startswith("b.sph cannot be read: it has version 2 of the format, ")
    assert text(whole[:10] + b"\0" + whole[11:]).endswith("it is damaged: the checksum of its header is wrong.")
    assert text(whole[:start]) == "b.sph is cut short: it ends within record 1."
    assert text(whole[:-1]) == "b.sph is cut short: it ends within the end."
    assert text(whole[: start + 3] + b"\0" + whole[start + 4 :]).endswith("the checksum of record 1 is wrong.")
    assert text(whole[:start] + b"\x7f") == "b.sph is damaged: record 1 claims 127 bytes, more than a packet has."
    assert text(whole[:start] + b"\x80\0").endswith("record 1 has a number that is written wrongly.")
    assert text(whole[:start] + b"\xff\xff\xff").endswith("record 1 has a number that is written wrongly.")
    assert text(whole + b"\0") == "b.sph goes on after its end."
    other = write(tmp_path / "c.sph", num_samples=2561)
    assert text(whole[:start] + other[start:]) == "b.sph says in two places how long it is, and they differ."
    assert sentence(tmp_path / "none.sph") == "none.sph cannot be read: No such file or directory."
    (tmp_path / "folder").mkdir()
    assert sentence(tmp_path / "folder") == "folder is a folder, not an .sph file."


def mended(path) -> tuple[list[SphRecord], SphReader]:
    with SphReader(path, mend=True) as stream:
        return list(stream), stream


# Gaps and payloads of several lengths, as a file with pauses has them.
MANY = [
    SphRecord(sequence, bytes((sequence + i) % 256 for i in range(length)))
    for sequence, length in ((0, 20), (1, 22), (2, 7), (90, 24), (91, 1), (92, 21), (95, 20), (96, 20))
]


def test_a_wrong_bit_costs_one_packet(tmp_path) -> None:
    whole = write(tmp_path / "a.sph", MANY)
    start, end = len(serialize_header(HEADER)), len(whole) - 13
    path = tmp_path / "b.sph"
    for position in range(8 * start, 8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        found, stream = mended(path)
        if position >= 8 * end:
            assert (found, stream.cut, stream.num_samples) == (MANY, True, 2560)
        else:
            assert len(found) == len(MANY) - 1, position
            assert [record for record in found if record not in MANY] == []
            assert not stream.cut
        assert stream.damaged == 1


def test_bursts_of_damage_leave_the_rest_where_it_was(tmp_path, rng) -> None:
    records = [SphRecord(i, rng.bytes(20)) for i in range(60)]
    whole = write(tmp_path / "a.sph", records)
    start = len(serialize_header(HEADER))
    for length in (2, 10, 26, 60, 200):
        for _ in range(20):
            damaged = bytearray(whole)
            place = int(rng.integers(start, len(whole) - 40 - length))
            damaged[place : place + length] = rng.bytes(length)
            (tmp_path / "b.sph").write_bytes(damaged)
            found, stream = mended(tmp_path / "b.sph")
            assert len(found) >= 60 - length / 26 - 2
            assert [record for record in found if record not in records] == []
            assert stream.num_samples == 2560


def test_bytes_that_are_gone_or_too_many(tmp_path, rng) -> None:
    records = [SphRecord(i, rng.bytes(20)) for i in range(60)]
    whole = write(tmp_path / "a.sph", records)
    start = len(serialize_header(HEADER))
    for length in (1, 7, 26, 100):
        place = int(rng.integers(start + 30, len(whole) - 200))
        for damaged in (whole[:place] + whole[place + length :], whole[:place] + rng.bytes(length) + whole[place:]):
            (tmp_path / "b.sph").write_bytes(damaged)
            found, _ = mended(tmp_path / "b.sph")
            assert len({record.payload for record in records} & {record.payload for record in found}) >= 54
            assert all(a.sequence < b.sequence for a, b in itertools.pairwise(found))


def test_a_cut_file_gives_what_is_there(tmp_path) -> None:
    whole = write(tmp_path / "a.sph", MANY)
    start = len(serialize_header(HEADER))
    path = tmp_path / "b.sph"
    for size in range(start, len(whole)):
        path.write_bytes(whole[:size])
        if size < start + 26:
            with pytest.raises(PacketError, match="nothing behind its header is sound"):
                mended(path)
            continue
        found, stream = mended(path)
        assert found == MANY[: len(found)]
        assert stream.cut
    assert len(found) == len(MANY)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_garbage_is_not_mended(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.sph"
    path.write_bytes(serialize_header(HEADER) + data)
    with pytest.raises(PacketError):
        mended(path)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_garbage_after_a_good_header_never_crashes(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.sph"
    path.write_bytes(serialize_header(HEADER) + data)
    with pytest.raises(PacketError):
        read(path)


def test_headers_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="A codec name has 1 to 64 printable ASCII characters, not 'é'"):
        replace(HEADER, codec="é")
    with pytest.raises(InputError, match="A sample rate lies between"):
        replace(HEADER, sample_rate=0)
    with pytest.raises(PacketError, match="The header goes on after its checksum"):
        parse_header(serialize_header(HEADER) + b"\0")


def test_packets_out_of_order_are_a_mistake_of_the_caller(tmp_path) -> None:
    with SphWriter(tmp_path / "a.sph", HEADER) as out:
        out.write(5, b"abc")
        for sequence, payload in ((5, b"abc"), (4, b"abc"), (6, b""), (6, bytes(1000))):
            with pytest.raises(ValueError, match="cannot follow 5"):
                out.write(sequence, payload)
    with SphReader(tmp_path / "a.sph") as stream:
        assert [record.sequence for record in stream] == [5]
        assert stream.num_samples is None
