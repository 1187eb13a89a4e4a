"""Trace files: both published formats, what is broken in them, and what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokengrid.traces import BrokenLine, Call, UnreadableTrace, read
from tokengrid.traces.reading import BROKEN_KEPT_MAX, LINE_BYTES_MAX

REFERENCE = Path(os.environ.get("TOKENGRID_REFERENCE", Path(__file__).parents[3] / "shared")) / "data" / "traces"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
MERGED = "TIMESTAMP,ContextTokens,GeneratedTokens,Service,SourceRow\n"


@pytest.fixture
def trace(tmp_path: Path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "trace"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- Azure 2023 ----------------------------------------------------------------------------------
def test_an_original_azure_file_has_calls_without_a_kind(trace) -> None:
    path = trace(AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n")
    assert list(read(path)) == [Call(0, 374, 0, 44), Call(4315, 396, 0, 109)]


def test_ticks_are_cut_to_milliseconds_before_they_are_subtracted(trace) -> None:
    path = trace(AZURE + "2023-11-16 23:59:59.9999999,1,1\n2023-11-17 00:00:00.0000001,1,1\n")
    assert [call.at_offset_ms for call in read(path)] == [0, 1]


def test_the_merged_azure_file_names_the_kind_of_each_call(trace) -> None:
    path = trace(MERGED + "2023-11-16 18:15:46.0,10,1,conv,1\n2023-11-16 18:15:46.5,20,2,code,1\n")
    assert list(read(path)) == [Call(0, 10, 0, 1, "conversation"), Call(500, 20, 0, 2, "coding")]


def test_line_ends_of_both_kinds_a_mark_of_byte_order_and_a_missing_last_end_are_read(trace) -> None:
    path = trace("\ufeff" + AZURE.replace("\n", "\r\n") + "2023-11-16 18:15:46,10,1\r\n\r\n2023-11-16 18:15:47,20,2")
    assert [call.input for call in read(path)] == [10, 20]


def test_columns_are_found_by_their_names(trace) -> None:
    path = trace("GeneratedTokens,Service,TIMESTAMP,ContextTokens\n7,conv,2023-11-16 18:15:46,10\n")
    assert list(read(path)) == [Call(0, 10, 0, 7, "conversation")]


# --- Mooncake ------------------------------------------------------------------------------------
def mooncake(at_ms: int, given: int, output: int, blocks: str) -> str:
    return f'{{"timestamp": {at_ms}, "input_length": {given}, "output_length": {output}, "hash_ids": [{blocks}]}}\n'


@pytest.mark.parametrize(
    ("blocks", "given", "cached"),
    [
        ("1, 2, 9", 1500, 1024),  # two blocks were seen, the third was not
        ("9, 1, 2", 1500, 0),  # seen, but behind something new: no prefix
        ("1, 2, 3", 1100, 1100),  # all seen, the last one partial
        ("1", 400, 400),  # the only block is partial
        ("", 400, 0),
    ],
)
def test_the_leading_blocks_seen_earlier_are_cached_input(trace, blocks: str, given: int, cached: int) -> None:
    path = trace(mooncake(5, 1536, 10, "1, 2, 3") + mooncake(8, given, 20, blocks))
    assert list(read(path))[1] == Call(3, given - cached, cached, 20, "conversation")


def test_a_call_does_not_find_its_own_blocks_in_the_cache(trace) -> None:
    path = trace(mooncake(0, 1024, 10, "7, 7"))
    assert list(read(path)) == [Call(0, 1024, 0, 10, "conversation")]


# --- what is broken --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2023-11-16 18:15:46.0,10", "columns"),
        ("2023-11-16 18:15:46.0,ten,1", "whole numbers"),
        ("2023-11-16 18:15:46.0,1.5,1", "whole numbers"),
        ("2023-11-16 18:15:46.0,-1,1", "whole numbers"),
        ("2023-11-16 18:15:46.0,٣,1", "whole numbers"),
        ("2023-11-16 18:15:46.0,9999999999,1", "not from 0"),
        ("2023-11-16 18:15:46.0,0,0", "no tokens"),
        ("2023-13-16 18:15:46.0,10,1", "not a time"),
        ("yesterday,10,1", "not a time"),
        ("2022-01-01 00:00:00.0,10,1", "before the first"),
        ("2223-01-01 00:00:00.0,10,1", "more than a year"),
    ],
)
def test_a_broken_line_is_named_by_its_number_and_the_rest_is_read(trace, line: str, reason: str) -> None:
    good = "2023-11-16 18:15:46.0,10,1\n"
    reader = read(trace(f"{AZURE}{good}{line}\n{good}"))
    assert len(list(reader)) == 2
    assert reader.broken_count == 1
    assert reader.broken[0].line == 3
    assert reason in reader.broken[0].reason


@pytest.mark.parametrize(
    "line",
    [
        '{"timestamp": 1, "input_length": 5}',
        '{"timestamp": 1, "input_length": "5", "output_length": 1}',
        '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": [1, 2]}',
        '{"timestamp": 1e400, "input_length": 5, "output_length": 1}',
        "[" * 100_000,
        "not json",
    ],
)
def test_a_broken_mooncake_line_is_left_out(trace, line: str) -> None:
    reader = read(trace(f"{mooncake(0, 10, 1, '1')}{line}\n{mooncake(9, 10, 1, '1')}"))
    assert [call.at_offset_ms for call in reader] == [0, 9]
    assert [broken.line for broken in reader.broken] == [2]


def test_a_line_of_any_length_is_passed_over_in_bounded_memory(trace) -> None:
    good = "2023-11-16 18:15:46.0,10,1\n"
    reader = read(trace(f"{AZURE}{good}{'x' * (3 * LINE_BYTES_MAX)}\n{good}"))
    assert len(list(reader)) == 2
    assert reader.broken == [BrokenLine(3, f"it is longer than {LINE_BYTES_MAX} bytes")]


def test_bytes_that_are_no_text_are_a_broken_line(trace) -> None:
    good = b"2023-11-16 18:15:46.0,10,1\n"
    reader = read(trace(AZURE.encode() + good + b"\xff\xfe\x00\n" + good))
    assert len(list(reader)) == 2
    assert reader.broken == [BrokenLine(3, "it is not UTF-8 text")]


def test_all_broken_lines_are_counted_and_the_first_are_kept(trace) -> None:
    reader = read(trace(AZURE + "x\n" * 1000))
    assert list(reader) == []
    assert reader.broken_count == 1000
    assert len(reader.broken) == BROKEN_KEPT_MAX


# --- what is none ------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", ["", "\n\n", "a,b,c\n1,2,3\n", '{"name": 1}\n', "\x00\x01", "TIMESTAMP\n2023\n"])
def test_what_is_no_trace_is_refused_in_one_sentence(trace, content: str) -> None:
    path = trace(content)
    with pytest.raises(UnreadableTrace) as refused:
        read(path)
    assert "no trace of a known format" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrace, match=r"cannot be read: No such file or directory\.$"):
        read(tmp_path / "nothing")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrace, match="Is a directory"):
        read(tmp_path)


# --- the published files -----------------------------------------------------------------------------
@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the published traces are not in {REFERENCE}")
@pytest.mark.parametrize(
    ("name", "form", "calls", "tokens"),
    [("azure2023_dev.csv", "azure2023", 22_436, None), ("mooncake_conversation_dev.jsonl", "mooncake", 2_000, 13_720)],
)
def test_the_published_traces_are_read_whole(name: str, form: str, calls: int, tokens: int | None) -> None:
    reader = read(REFERENCE / name)
    found = list(reader)
    assert (reader.format, len(found), reader.broken_count) == (form, calls, 0)
    assert [call.at_offset_ms for call in found] == sorted(call.at_offset_ms for call in found)
    if tokens is not None:  # the mean input that the trace's authors counted, cached or not
        assert sum(call.input + call.cached_input for call in found) // calls == tokens
