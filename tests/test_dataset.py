"""Data sets of every form, and everything that can be wrong with one."""

import json
import math
import os
import re
import unicodedata

import h5py
import numpy as np
import pytest
from fakes import touch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from aqa.cache.actions import ACTIONS
from aqa.extract import datasets
from aqa.extract.datasets import read_dataset
from aqa.extract.datasets.aqa7 import read_split_list
from aqa.extract.datasets.dataset import Dataset, DatasetError, Layout, Video

MIDDLE = {a.name: round(sum(a.score_range) / 2, 2) for a in ACTIONS}
IDS = {action.name: index + 1 for index, action in enumerate(ACTIONS)}


FUZZ = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def row(action, number, score=None):
    return IDS[action], number, MIDDLE[action] if score is None else score


def write_lists(root, train, test, folder="Split_4", name="split_4_{}_list"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("test", test)):
        variable = f"consolidated_{split}_list"
        path = root / folder / f"{name.format(split)}.mat"
        savemat(path, {variable: np.array(rows, float).reshape(-1, 3)})


@pytest.fixture
def release(tmp_path):
    """Two dives and two vaults, plain scores."""
    root = tmp_path / "AQA-7"
    write_lists(
        root,
        [row("diving", 1), row("gym_vault", 7)],
        [row("diving", 2), row("gym_vault", 3)],
    )
    for key in ("diving/001", "diving/002", "gym_vault/007", "gym_vault/003"):
        touch(root, f"Actions/{key}.avi")
    return root


def keys(dataset):
    return [video.key for video in dataset.videos]


def refused(path, match, *arguments, **options):
    with pytest.raises(DatasetError, match=match) as caught:
        read_dataset(path, *arguments, **options)
    return str(caught.value)


def manifest(folder, *rows, header="video,action,score,split"):
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


# The released layout


def test_real_lists_have_the_counts_of_the_paper(shared_data, tmp_path):
    tables = json.loads((shared_data / "paper_tables.json").read_text())
    folder = tmp_path / "AQA-7" / "Split_4"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        name = f"consolidated_{split}_list"
        source = shared_data / "aqa7" / f"{name}.mat"
        (folder / f"split_4_{split}_list.mat").write_bytes(source.read_bytes())
        for action, number, _ in loadmat(source)[name]:
            action = ACTIONS[int(action) - 1].name
            touch(folder.parent, f"Actions/{action}/{int(number):03d}.avi")
    dataset = read_dataset(tmp_path)
    assert len(dataset.videos) == 803 + 303
    for split in ("train", "test"):
        for action, count in tables["split"][split].items():
            mine = [v for v in dataset.videos if (v.action, v.split) == (action, split)]
            assert len(mine) == count
            low, high = tables["table1"][action]["score_range"]
            assert all(low <= video.score <= high for video in mine)
    assert any("times 100" in note for note in dataset.notes)
    assert "803 train, 303 test, as released" in dataset.notes
    lines = (shared_data / "aqa7" / "aqa7_split4_readable.csv").read_text().split()
    readable = {
        f"{action}/{int(number):03d}": (split, float(score))
        for split, _, action, number, score in (x.split(",") for x in lines[1:])
    }
    assert {v.key: (v.split, v.score) for v in dataset.videos} == readable


@pytest.mark.parametrize("below", [True, False])
def test_release_is_found_at_the_folder_and_below_it(release, below):
    dataset = read_dataset(release.parent if below else release)
    assert dataset.root == release
    vaults = ["gym_vault/003", "gym_vault/007"]
    assert keys(dataset) == ["diving/001", "diving/002", *vaults]
    first = dataset.videos[0]
    assert (first.action, first.split) == ("diving", "train")
    assert first.score == MIDDLE["diving"]
    assert first.path == release / "Actions/diving/001.avi"
    assert "not as released: diving 1 train, 1 test" in dataset.notes[1]


@pytest.mark.parametrize(
    "place",
    [
        "diving-out/001/img_00001.jpg",
        "Actions/diving/frames/001/img_00001.jpg",
        "Actions/diving/001.mp4",
    ],
)
def test_frames_or_a_converted_video_stand_in_for_the_released_one(release, place):
    (release / "Actions/diving/001.avi").unlink()
    touch(release, place)
    path = release / place
    expected = path if path.suffix == ".mp4" else path.parent
    assert read_dataset(release).videos[0].path == expected


def test_lists_may_bear_the_names_of_their_variables(release):
    for split in ("train", "test"):
        old = release / f"Split_4/split_4_{split}_list.mat"
        old.rename(release / f"Split_4/consolidated_{split}_list.mat")
    assert len(read_dataset(release).videos) == 4


def test_times_100_gives_the_same_scores_as_plain(release):
    plain = [video.score for video in read_dataset(release).videos]
    write_lists(
        release,
        [row("diving", 1, MIDDLE["diving"] * 100), row("gym_vault", 7, 1458.5)],
        [row("diving", 2, MIDDLE["diving"] * 100), row("gym_vault", 3, 1458.5)],
    )
    dataset = read_dataset(release)
    assert dataset.notes[0] == "scores in the lists are times 100, and were divided"
    plain[2:] = [14.585, 14.585]
    assert [video.score for video in dataset.videos] == plain


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([(1, 1, 8415)], [row("gym_vault", 3)], "mix .* 1 plain, 1 times 100"),
        *(
            ([bad], [row("diving", 2)], "train row 1")
            for bad in ((0, 1, 50), (8, 1, 50), (1.5, 1, 50), (1, 0, 50), (1, 2.5, 50))
        ),
        ([row("trampoline", 4)], [row("trampoline", 5)], "sample of the six actions"),
    ],
)
def test_lists_of_other_numbers_are_refused(release, train, test, message):
    write_lists(release, train, test)
    refused(release, message)


def test_trampoline_comes_by_name_only(release):
    write_lists(release, [row("diving", 1), row("trampoline", 4)], [row("diving", 2)])
    touch(release, "Actions/trampoline/004.avi")
    default = read_dataset(release)
    assert {video.action for video in default.videos} == {"diving"}
    assert "listed, but not asked for: trampoline" in default.notes
    named = read_dataset(release, ["trampoline"])
    assert keys(named) == ["trampoline/004"]


def test_an_action_in_no_list_comes_whole_and_unlabelled_by_name(release):
    """The authors' own lists hold no trampoline."""
    touch(release, "Actions/trampoline/012.avi", "trampoline-out/003/img_00001.jpg")
    touch(release, "Actions/trampoline/notes.txt", "Actions/trampoline/4/x.jpg")
    assert len(read_dataset(release).videos) == 4
    dataset = read_dataset(release, ["trampoline"])
    assert keys(dataset) == ["trampoline/003", "trampoline/012"]
    assert all(v.split == "" and math.isnan(v.score) for v in dataset.videos)
    assert "2 videos in no list, unlabelled: trampoline" in dataset.notes[1]
    both = read_dataset(release, ["diving", "trampoline"])
    assert len(both.videos) == 4
    assert "1 train, 1 test" in both.notes[1] and "2 videos in no" in both.notes[2]


def test_every_problem_is_named_at_once(release):
    write_lists(
        release,
        [row("diving", 1), row("diving", 1), row("gym_vault", 7, 99)],
        [row("diving", 1), row("ski_big_air", 5)],
    )
    message = refused(release, "4 problems")
    assert "sample twice in the train list: diving/001" in message
    assert "sample in both lists: diving/001" in message
    assert "gym_vault/007 (train) has 99, expected 12.3 to 16.87" in message
    assert "missing video: Actions/ski_big_air/005.avi" in message


def test_long_lists_of_problems_are_counted_not_printed(release):
    numbers = range(100, 160)
    write_lists(release, [row("diving", n) for n in numbers], [row("diving", 1)])
    message = refused(release, r"missing video \(60\)")
    assert "and 52 more" in message and len(message) < 1000


def test_missing_lists_and_unknown_actions_are_named(release):
    refused(release, "unknown action: curling", ["curling"])
    refused(release, "no sample of the action: ski_big_air", ["ski_big_air"])
    (release / "Split_4/split_4_test_list.mat").unlink()
    refused(release, "missing list: .*split_4_test_list.mat")


def test_a_video_linked_from_outside_is_refused(release):
    outside = release.parent / "secret.avi"
    outside.touch()
    (release / "Actions/diving/001.avi").unlink()
    (release / "Actions/diving/001.avi").symlink_to(outside)
    refused(release, "link out of")


# Hostile MATLAB files


def list_error(path):
    with pytest.raises(ValueError) as caught:
        read_split_list(path, "consolidated_train_list")
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"x": np.zeros((3, 3))},
        {"consolidated_train_list": np.zeros((3, 4))},
        {"consolidated_train_list": np.zeros((0, 3))},
        {"consolidated_train_list": np.array([[1, 2, np.nan]])},
        {"consolidated_train_list": np.array([[1, 2, np.inf]])},
        {"consolidated_train_list": "os.system('true')"},
        {"consolidated_train_list": {"a": {"b": {"c": 1}}}},
        {"consolidated_train_list": np.array([[1, "x", 2.0]], object)},
        {"consolidated_train_list": np.ones((2, 3)) * 1j},
        {"consolidated_train_list": np.zeros((100_001, 3))},
    ],
)
def test_lists_of_other_shapes_and_types_are_refused(tmp_path, content):
    savemat(tmp_path / "list.mat", content, do_compression=True)
    assert "list.mat: expected" in list_error(tmp_path / "list.mat")


def test_a_file_too_large_to_be_a_list_is_not_parsed(tmp_path):
    path = tmp_path / "list.mat"
    savemat(path, {"consolidated_train_list": np.zeros((90_000, 3))})
    assert "expected a list of some kB" in list_error(path)


def test_a_declared_shape_of_a_billion_rows_loads_nothing(tmp_path):
    path = tmp_path / "list.mat"
    savemat(path, {"consolidated_train_list": np.ones((2, 3))})
    data = path.read_bytes().replace(b"\x02\0\0\0\x03\0\0\0", b"\0\0\0\x40\x03\0\0\0")
    path.write_bytes(data)
    assert "list.mat: not a MATLAB file" in list_error(path)


def version_7_3(path, variable, table):
    """Write as MATLAB does: HDF5 behind a header of 512 bytes, matrices transposed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file[variable] = table.T
        file[variable].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, HDF5 schema 1.00 .".ljust(124) + b"\0\2IM")


@pytest.mark.parametrize(
    "write",
    [
        lambda path, name, table: savemat(path, {name: table}),
        lambda path, name, table: savemat(path, {name: table}, do_compression=True),
        lambda path, name, table: savemat(path, {name: table}, format="4"),
        lambda path, name, table: savemat(path, {name: table.astype(np.int32)}),
        version_7_3,
    ],
    ids=["5", "5 compressed", "4", "int32", "7.3"],
)
def test_lists_of_every_matlab_version_are_read(release, write):
    rows = {"train": [(1, 1, 5000)], "test": [(1, 2, 5500)]}
    for split, table in rows.items():
        path = release / "Split_4" / f"split_4_{split}_list.mat"
        write(path, f"consolidated_{split}_list", np.array(table, float))
    found = [(v.key, v.score, v.split) for v in read_dataset(release).videos]
    assert found == [("diving/001", 50.0, "train"), ("diving/002", 55.0, "test")]


def test_a_matlab_file_that_links_elsewhere_is_refused(tmp_path):
    version_7_3(tmp_path / "other.mat", "secret", np.ones((2, 3)))
    path = tmp_path / "list.mat"
    with h5py.File(path, "w") as file:
        file["consolidated_train_list"] = h5py.ExternalLink("other.mat", "secret")
    assert "to be a matrix of numbers" in list_error(path)


@settings(FUZZ, max_examples=20)
@given(data=st.data())
def test_a_damaged_list_is_read_or_refused(tmp_path, data):
    path = tmp_path / "list.mat"
    rows = np.array([row("diving", 1), row("gym_vault", 2)])
    compress = data.draw(st.booleans())
    savemat(path, {"consolidated_train_list": rows}, do_compression=compress)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_split_list(path, "consolidated_train_list")
    except ValueError as error:
        assert str(error).startswith("list.mat: ")
    else:
        assert found.dtype == np.float64 and found.shape[1] == 3


# Manifests


def test_manifest_reads_labels_and_keeps_paths(tmp_path):
    touch(tmp_path, "b/two.mp4", "one.avi", "frames/three/img_00001.jpg")
    path = manifest(
        tmp_path,
        "./b//two.mp4,figure,7.25,train",
        "one.avi,diving,50,",
        '"frames/three",figure,,test',
        "",
    )
    dataset = read_dataset(path)
    first, second, third = dataset.videos
    assert (first.key, second.key) == ("b/two.mp4", "frames/three")
    assert first.path == tmp_path / "b/two.mp4" and first.score == 7.25
    assert math.isnan(second.score) and second.split == "test"
    assert (third.key, third.action, third.split) == ("one.avi", "diving", "")
    assert "1 train, 1 test, 1 neither; 1 unlabelled" in dataset.notes[0]
    assert len(read_dataset(path, ["figure"]).videos) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one.avi,diving,50", "line 2: 3 fields; expected 4"),
        ("one.avi,,50,train", "name of an action"),
        ("one.avi,diving,fifty,train", "score 'fifty' is not a number"),
        ("one.avi,diving,nan,train", "score 'nan' is not a number"),
        ("one.avi,figure,1_0,train", "score '1_0' is not a number"),
        ("one.avi,diving,5000,train", "expected a score of 21.6 to 102.6"),
        (
            "one.avi,diving,50,validation",
            "split is 'validation', not train, test or empty",
        ),
        ("two.avi,diving,50,train", "missing video: two.avi"),
        ("../one.avi,diving,50,train", "leads out of its folder"),
        ("a/../../one.avi,diving,50,train", "leads out of its folder"),
        ("/etc/passwd,diving,50,train", "found an absolute one"),
        ("a\\one.avi,diving,50,train", "backslash"),
        ("one.avi\x1b[2J,diving,50,train", "holds the control character"),
        ("one.avi\0,diving,50,train", "holds the control character"),
        (",diving,50,train", "is empty"),
        ("a" * 2000 + ".avi,diving,50,train", "bytes long"),
        ("one.avi,../diving,50,train", "cannot be part of a file's name"),
        ("one.avi,diving,50,train\none.avi,diving,60,test", "one.avi in lines 2 and 3"),
        ("link.avi,diving,50,train", "is a link out of"),
        ("out/secret.avi,diving,50,train", "leads out of"),
        ('one.avi,"diving,50,train', "cannot be read as CSV"),
        ("", "expected one video per row"),
    ],
)
def test_manifest_names_what_is_wrong(tmp_path, line, message):
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    touch(outside, "secret.avi")
    touch(inside, "one.avi")
    (inside / "link.avi").symlink_to(outside / "secret.avi")
    (inside / "out").symlink_to(outside)
    message = refused(manifest(inside, line), re.escape(message))
    assert not re.search("[\x00-\x09\x0b-\x1f]", message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("filename,action,score", "found action, score, filename: no 'video'; rename"),
        ("clips,action,score", "found action, score: no 'video'$"),
        ("video,action,Points", "'Points' to 'score'"),
        ("video,activity,score", "lacks action; expected .*: rename its columns"),
    ],
)
def test_a_column_under_another_name_is_named(tmp_path, header, message):
    touch(tmp_path, "one.avi")
    refused(manifest(tmp_path, "one.avi,figure,1", header=header), message)


def test_manifest_header_and_encoding_are_checked(tmp_path):
    path = manifest(tmp_path, header="video,score,split")
    refused(path, "header 'video,score,split' lacks action")
    path.write_bytes(b"video,action,score,split\n\xff\xfe,diving,50,train\n")
    refused(path, "not UTF-8 after line 0")
    touch(tmp_path, "one.avi")
    path = manifest(tmp_path, "one.avi,figure,1,")
    refused(path, "no sample of the action: vault, found", ["vault"])


@settings(FUZZ, max_examples=200)
@given(text=st.text(max_size=80), header=st.booleans())
def test_any_text_is_a_manifest_or_refused(tmp_path, text, header):
    path = tmp_path / "labels.csv"
    start = "video,action,score,split\n" if header else ""
    path.write_bytes((start + text).encode("utf-8", "surrogatepass"))
    try:
        read_dataset(path)
    except DatasetError as error:
        assert str(path) in str(error)


# Bare folders


def test_folder_takes_videos_below_it_and_nothing_else(tmp_path):
    touch(tmp_path, "a/one.AVI", "two.mp4", "three.txt", ".hidden.mp4", ".git/x.mp4")
    (tmp_path / "again").symlink_to(tmp_path / "a")
    dataset = read_dataset(tmp_path)
    assert keys(dataset) == ["a/one.AVI", "two.mp4"]
    video = dataset.videos[0]
    assert (video.action, video.split) == ("", "") and math.isnan(video.score)


def test_what_is_no_data_set_is_said(tmp_path):
    touch(tmp_path, "one.MP4", "list.docx")
    refused(tmp_path / "one.MP4", "found one video: name its folder, or `aqa score`")
    refused(tmp_path / "list.docx", "found another file")
    refused(tmp_path / "gone.csv", "found nothing")


def test_folder_refuses_links_that_lead_out(tmp_path):
    touch(tmp_path, "outside/secret.mp4", "inside/one.mp4")
    (tmp_path / "inside/link.mp4").symlink_to(tmp_path / "outside/secret.mp4")
    (tmp_path / "inside/folder").symlink_to(tmp_path / "outside")
    (tmp_path / "inside/gone.mp4").symlink_to(tmp_path / "inside/nowhere.mp4")
    message = refused(tmp_path / "inside", "3 problems")
    assert "missing video: gone.mp4 (a link)" in message


def test_folder_refuses_names_that_are_no_text(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\x1b[2J.mp4")).touch()
    refused(tmp_path, "control character")


@pytest.mark.parametrize("made", ["nothing", "empty", "file"])
def test_what_is_no_data_set_is_refused(tmp_path, made):
    path = tmp_path / "x.bin"
    if made == "empty":
        path.mkdir()
    elif made == "file":
        path.touch()
    refused(path, "expected")
    refused(path, "expected", ["diving"])


# Files elsewhere, missing, and named otherwise


@pytest.fixture
def share(tmp_path):
    """Videos on a share, a CSV elsewhere; returns both folders."""
    touch(tmp_path, "share/a/one.mp4", "share/two.mp4", "lists/three.mp4")
    return tmp_path / "share", tmp_path / "lists"


def test_roots_name_where_files_may_lie(share):
    root, lists = share
    rows = ["a/one.mp4,x,1,", f"{root}/two.mp4,x,2,", "three.mp4,x,3,"]
    path = manifest(lists, *rows)
    refused(path, "an absolute one; --root DIR permits")
    found = read_dataset(path, roots=[root])
    assert [(video.key, video.path) for video in found.videos] == [
        ("a/one.mp4", root / "a/one.mp4"),
        ("three.mp4", lists / "three.mp4"),
        ("two.mp4", root / "two.mp4"),
    ]
    path = manifest(lists, "../share/a/one.mp4,x,1,", "../elsewhere.mp4,x,1,")
    refused(path, r"line 3: '../elsewhere.mp4' leads out", roots=[root])
    refused(path, "--root .*nowhere: expected a folder", roots=[lists / "nowhere"])


def test_a_video_below_two_roots_is_said(share):
    root, lists = share
    touch(lists, "two.mp4")
    found = read_dataset(manifest(lists, "two.mp4,x,1,"), roots=[root])
    assert found.videos[0].path == lists / "two.mp4"
    assert found.notes[-1].startswith("1 videos lie in several places; used: ")


def test_two_rows_of_one_key_below_two_roots_are_refused(share):
    root, lists = share
    touch(lists, "more/two.mp4")
    rows = [f"{root}/two.mp4,x,1,", f"{lists}/more/two.mp4,x,1,"]
    refused(
        manifest(lists, *rows),
        "video twice: two.mp4 in lines 2 and 3",
        roots=[root, lists / "more"],
    )


def test_snapshots_of_links_to_blobs_are_read_below_their_root(tmp_path):
    """As huggingface_hub and git-annex lay files out."""
    touch(tmp_path, "hub/blobs/0af", "hub/blobs/1bf", "elsewhere/2cf")
    snapshot = tmp_path / "hub/snapshots/abc"
    snapshot.mkdir(parents=True)
    for name, blob in (("one.mp4", "0af"), ("two.mp4", "1bf")):
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    refused(snapshot, r"--root DIR .*one.mp4 is a link out of it")
    found = read_dataset(snapshot, roots=[tmp_path / "hub"])
    assert keys(found) == ["one.mp4", "two.mp4"]
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "A").symlink_to(snapshot)
    (linked / "B").symlink_to(tmp_path / "elsewhere")
    refused(linked, "B is a link out of it", roots=[tmp_path / "hub"])
    (linked / "B").unlink()
    found = read_dataset(linked, roots=[tmp_path / "hub"])
    assert keys(found) == ["A/one.mp4", "A/two.mp4"]


@pytest.mark.parametrize("below", ["Actions/diving", "list"])
def test_missing_videos_are_refused_or_skipped(release, below):
    if below == "list":
        touch(release, "one.avi")
        path = manifest(release, "one.avi,x,1,", "two.avi,x,2,", "three.avi,x,3,")
        missing = ["three.avi", "two.avi"]
    else:
        path, missing = release, ["diving/001", "diving/002"]
        for key in missing:
            (release / f"Actions/{key}.avi").unlink()
    refused(path, r"missing video \(2\)")
    found = read_dataset(path, skip_missing=True)
    keys = [video.key for video in found.videos if not video.path.exists()]
    assert keys == missing
    assert found.notes[-1].startswith("2 missing videos are skipped and listed in fail")


def test_another_case_is_hinted_at_and_another_unicode_form_is_read(tmp_path):
    nfd = unicodedata.normalize("NFD", "plongée.mp4")
    touch(tmp_path, nfd, "Diving/One.mp4")
    found = read_dataset(manifest(tmp_path, "plongée.mp4,x,1,"))
    assert found.videos[0].key == "plongée.mp4" and found.videos[0].path.exists()
    refused(manifest(tmp_path, "diving/one.mp4,x,1,"), "did you mean Diving/One.mp4?")
    assert [v.key for v in read_dataset(tmp_path).videos][1] == "plongée.mp4"
    touch(tmp_path, "plongée.mp4")
    if len(list(tmp_path.iterdir())) > 3:  # a file system that tells them apart
        refused(tmp_path, "two forms of one name")


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("clips/1.mp4", "clips/001.mp4"),  # a spreadsheet dropped the zeros
        ("clips/one", "clips/one.mp4"),  # the suffix left out
        ("clips/one.avi", "clips/one.mp4"),  # converted since
        ("Clips/One.MP4", "clips/one.mp4"),
    ],
)
def test_what_lists_commonly_get_wrong_is_hinted_at(tmp_path, written, there):
    touch(tmp_path, there, "clips/._" + there.removeprefix("clips/"))
    refused(manifest(tmp_path, f"{written},x,1,"), f"did you mean {re.escape(there)}?")
    touch(tmp_path, "clips/01.mp4", "clips/one.mov")  # two candidates: no hint
    if there != "clips/one.mp4" or written != "Clips/One.MP4":
        refused(
            manifest(tmp_path, f"{written},x,1,"), r"missing video: \S+ \(line 2\)$"
        )


def test_names_with_blanks_upper_case_suffixes_and_equal_names_in_two_folders(tmp_path):
    names = ["cat/000.mp4", "dog/000.MP4", "drinking (31).Mp4"]
    touch(tmp_path, *names)
    assert keys(read_dataset(tmp_path)) == names
    path = manifest(tmp_path, *(f"{name},x,1," for name in names))
    assert keys(read_dataset(path)) == names


IGNORED = [
    *(".ipynb_checkpoints/a.mp4", "._one.mp4", "__MACOSX/one.mp4", "@eaDir/one.mp4"),
    *(".Trash-1000/files/one.mp4", "Thumbs.db", ".DS_Store", "desktop.ini"),
    *("$RECYCLE.BIN/one.mp4", "System Volume Information/one.mp4", "lost+found/a.mp4"),
]


@pytest.mark.parametrize("name", IGNORED)
def test_what_systems_leave_behind_is_no_video(tmp_path, name):
    touch(tmp_path, "one.mp4", name)
    assert keys(read_dataset(tmp_path)) == ["one.mp4"]


@pytest.mark.parametrize("split", ["", "TRAIN", " train "])
def test_further_columns_and_other_cases_are_read(tmp_path, split):
    """Encodings and separators are in test_list_matrix.py."""
    touch(tmp_path, "one.mp4")
    nfd = unicodedata.normalize("NFD", " plongée ")
    header = "Video;action;Surgeon;score;split"
    path = manifest(tmp_path, f"one.mp4;{nfd};B;7.5;{split}", header=header)
    found = read_dataset(path)
    (video,) = found.videos
    assert (video.key, video.action, video.score) == ("one.mp4", "plongée", 7.5)
    assert video.split == split.strip().lower()
    assert video.extra == {"Surgeon": "B"}
    assert any("further columns: Surgeon" in note for note in found.notes)
    assert ("`--folds` assigns" in found.notes[0]) == (not split)


def test_actions_that_look_alike_are_named(tmp_path):
    touch(tmp_path, "one.mp4", "two.mp4")
    found = read_dataset(manifest(tmp_path, "one.mp4,Squat,1,", "two.mp4,squat,2,"))
    assert any("'Squat' and 'squat' differ in case" in note for note in found.notes)


def test_keys_stand_alone_where_no_video_is_needed(tmp_path):
    path = manifest(tmp_path, "a/001,x,1,train", header="key,action,score,split")
    refused(path, "keys alone needs --poses DIR")
    (video,) = read_dataset(path, labels_only=True).videos
    assert (video.key, video.score, video.split) == ("a/001", 1.0, "train")
    touch(tmp_path, "one.mp4")
    path = manifest(
        tmp_path, "one.mp4,first,x,1,", header="video,key,action,score,split"
    )
    assert read_dataset(path).videos[0].key == "first"


def test_an_action_that_is_too_long_for_file_names_is_refused(tmp_path):
    touch(tmp_path, "one.mp4")
    refused(
        manifest(tmp_path, f"one.mp4,{'x' * 240},1,"),
        "line 2: action is 240 bytes long",
    )


# A layout of one's own


def test_a_further_layout_is_one_module_and_one_line(tmp_path, monkeypatch):
    """A module in extract/datasets/ would hold the Layout; the line inserts it."""

    def read(request):
        table = json.loads((request.path / "scores.json").read_text())
        videos = (
            Video(key, request.path / key, "squat", "", score)
            for key, score in table.items()
        )
        return Dataset(request.path, tuple(videos), ())

    def matches(path):
        return (path / "scores.json").is_file()

    layout = Layout("a folder with scores.json", matches, read)
    monkeypatch.setattr(datasets, "LAYOUTS", [layout, *datasets.LAYOUTS])
    (tmp_path / "scores.json").write_text('{"a.mp4": 3, "b.mp4": 7.5}')
    assert [video.score for video in read_dataset(tmp_path).videos] == [3, 7.5]
    refused(tmp_path / "nowhere", r"a folder with scores.json, the AQA-7")
