"""Hard negatives: equal to ranking the pool one example at a time, and never a right reply."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rejoinder import checkpoint, mining, tasks
from rejoinder.cli import main
from rejoinder.config import TrainConfig
from rejoinder.data import read, write_jsonl
from rejoinder.errors import ConfigError, DataError, RejoinderError
from rejoinder.mining import LOOKS, Mined, MiningSettings, best, key, mine
from rejoinder.models.rankers import CrossEncoder
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, Message, examples
from rejoinder.training.batches import listed_batch
from rejoinder.training.source import listed
from rejoinder.training.start import training_examples

Make = Callable[..., TextRanker]
THINGS = ("tea", "dogs", "rain", "chess", "music", "snow", "books", "cheese")
POOL = [f"i like {a} and {b} ." for a in THINGS for b in THINGS if a < b]
TALK = [
    Dialogue(
        (
            Message("user", f"do you like {a} ?"),
            Message("assistant", f"i like {a} and {b} .", alternatives=(f"{a} and {b} , yes",)),
            Message("user", f"tell me more about {b} ."),
            Message("assistant", f"my brother likes {b} , not {a} ."),
        ),
        (f"i love {a} .",),
        (f"i am a guide for {b} .",),
    )
    for a, b in zip(THINGS, THINGS[1:], strict=False)
]


def slowly(
    ranker: TextRanker,
    asked: list[Example],
    pool: list[str],
    settings: MiningSettings,
    teacher: TextRanker | None = None,
) -> list[tuple[str, ...]]:
    """The same by the book: one example, the whole pool, one filter after the other."""
    found = []
    for example in asked:
        right = {key(reply) for reply in example.replies}
        order = [pool[i] for i in ranker.rank(example.context, pool).order]
        wrong = [text for text in order if key(text) not in right][settings.skip :]
        if teacher:
            wrong = wrong[: LOOKS * settings.keep]
        judge = teacher or ranker
        if teacher or settings.margin is not None:
            *scores, reply = judge.scores(example.context, [*wrong, example.reply]).tolist()
            limit = reply - (settings.margin or 0)
            wrong = [text for text, score in zip(wrong, scores, strict=True) if score <= limit]
        found.append(tuple(wrong[: settings.keep]))
    return found


SETTINGS = {
    "plain": MiningSettings(),
    "skip and margin": MiningSettings(keep=40, skip=2, margin=-0.5),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_it_is_the_slow_ranking(
    ranker: TextRanker, settings: MiningSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list(examples(TALK))
    if ranker.is_cross:
        settings = MiningSettings(
            keep=settings.keep, skip=settings.skip, margin=settings.margin, draw=len(POOL)
        )
    monkeypatch.setattr(mining, "CELLS", 100)  # blocks of few contexts and few candidates
    assert mine(ranker, asked, POOL, settings).lists == slowly(ranker, asked, POOL, settings)


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_a_teacher_is_the_slow_one(make: Make, kind: str) -> None:
    ranker, teacher = make(kind="poly"), make(kind=kind, seed=3)
    asked = list(examples(TALK))
    for settings in (MiningSettings(keep=2), MiningSettings(keep=3, margin=0.2, skip=1)):
        mined = mine(ranker, asked, POOL, settings, teacher=teacher)
        assert mined.lists == slowly(ranker, asked, POOL, settings, teacher)
        assert mined.teacher > 0
        assert mined.margin == 0, "the margin is the teacher's"


def test_order_changes_nothing(make: Make) -> None:
    ranker, asked = make(kind="poly"), list(examples(TALK))
    for settings in (MiningSettings(), MiningSettings(draw=9, seed=4)):
        forth = mine(ranker, asked, POOL, settings)
        back = mine(ranker, asked[::-1], POOL, settings)
        assert back.lists[::-1] == forth.lists
        assert mine(ranker, asked[3:6], POOL, settings).lists == forth.lists[3:6]


def test_draws_follow_the_seed_and_all_of_them_is_the_pool(make: Make) -> None:
    ranker, asked = make(kind="bi"), list(examples(TALK))
    few = mine(ranker, asked, POOL, MiningSettings(draw=5))
    assert mine(ranker, asked, POOL, MiningSettings(draw=5)) == few
    assert mine(ranker, asked, POOL, MiningSettings(draw=5, seed=1)) != few
    everything = mine(ranker, asked, POOL, MiningSettings(draw=999))
    assert everything.lists == mine(ranker, asked, POOL, MiningSettings()).lists


def test_what_is_right_is_never_a_negative(make: Make) -> None:
    first, *others = (
        Example(Dialogue((Message("user", "do you like tea ?"),)), replies)
        for replies in (("I like tea.", "yes, tea!"), ("Oh, rain ...",))
    )
    pool = ["i like tea !", "yes tea", "oh rain", " ", "no , dogs", "No dogs.", "books ?"]
    mined = mine(make(kind="bi"), [first, *others], pool, MiningSettings(keep=9))
    assert [set(texts) for texts in mined.lists] == [{"no , dogs", "books ?"}] * 2
    assert mined.candidates == 5, "a text that comes again in other dress is one, a blank is none"
    assert mined.right == 6, "three for each: what is said to a context is right for it"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I'm  fine, thanks!", "i ' m fine , thanks ."),
        ("\ufb01ne", "FINE"),
        ("Straße", "STRASSE"),
        ("well-known\n", "well\u2014known"),
    ],
)
def test_texts_that_are_the_same(one: str, other: str) -> None:
    assert key(one) == key(other)


def test_texts_that_are_not() -> None:
    texts = ["...", "?!", "yes", "no", "yes 😀", "c++", "c", "é", "e"]
    assert len({key(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("count", "places"), [(0, []), (1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (9, [1, 3, 4, 0])]
)
def test_of_equal_scores_the_earlier_comes_first(count: int, places: list[int]) -> None:
    scores = torch.tensor([0.5, 2.0, -math.inf, 2.0, 2.0])
    assert best(scores, count).tolist() == places


def test_every_candidate_is_counted_where_it_was_left_out(make: Make) -> None:
    asked = list(examples(TALK))
    settings = MiningSettings(keep=len(POOL), skip=3, margin=0.0)
    mined = mine(make(kind="bi"), asked, POOL, settings)
    left_out = mined.right + mined.skipped + mined.margin
    assert left_out + sum(map(len, mined.lists)) == len(asked) * len(POOL)
    assert mined.skipped == 3 * len(asked)
    assert mined.right == sum(example.reply in POOL for example in asked) > 0


def test_a_larger_margin_leaves_less(make: Make) -> None:
    ranker, asked = make(kind="bi"), list(examples(TALK))

    def left(margin: float | None) -> int:
        mined = mine(ranker, asked, POOL, MiningSettings(keep=len(POOL), margin=margin))
        return sum(map(len, mined.lists))

    sizes = [left(margin) for margin in (None, -1.0, 0.0, 1.0, 1e9)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] > sizes[-1] == 0


def test_a_constant_on_all_scores_changes_nothing(make: Make) -> None:
    ranker, asked = make(kind="cross"), list(examples(TALK))
    settings = MiningSettings(draw=20, margin=0.1)
    before = mine(ranker, asked, POOL, settings)
    assert before.margin > 0
    assert isinstance(ranker.module, CrossEncoder)
    with torch.no_grad():
        ranker.module.linear.bias.add_(8.0)
    assert mine(ranker, asked, POOL, settings) == before


def test_in_the_middle_of_training_there_is_no_dropout_and_it_goes_on(make: Make) -> None:
    ranker, asked = make(kind="bi", dropout=0.5), list(examples(TALK))
    calm = mine(ranker, asked, POOL, MiningSettings())
    ranker.module.train()
    assert mine(ranker, asked, POOL, MiningSettings()) == calm
    assert ranker.module.training


def test_nothing_to_mine_for_is_nothing(make: Make) -> None:
    mined = mine(make(kind="bi"), [], POOL, MiningSettings())
    assert mined.lists == []
    assert mined.as_json()["negatives"] == 0


def test_sizes_are_told() -> None:
    mined = Mined(
        lists=[("a", "b"), (), ("c",)], candidates=9, right=1, skipped=2, margin=3, teacher=4
    )
    told = mined.as_json()
    assert (told["negatives"], told["fewest"], told["without"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep": 0}, "keep is 0; expected 1 or more"),
        ({"skip": -1}, "skip is -1; expected 0 or more"),
        ({"draw": 4, "skip": 4}, "leaves nothing"),
        ({"margin": math.nan}, "margin is nan; expected a number"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MiningSettings(**wrong)


def test_what_cannot_be_mined(make: Make) -> None:
    asked = list(examples(TALK))
    with pytest.raises(ConfigError, match="--draw 24"):
        mine(make(kind="cross"), asked, POOL, MiningSettings())
    with pytest.raises(ConfigError, match="no candidates"):
        mine(make(kind="bi"), asked, [" "], MiningSettings())


# the task and the command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(TALK, tmp_path / "talk.jsonl")
    return tmp_path / "talk.jsonl"


@pytest.fixture
def model(make: Make, tmp_path: Path) -> Path:
    checkpoint.save(make(kind="bi"), tmp_path / "model")
    return tmp_path / "model"


def test_the_file_has_the_same_examples_with_negatives(model: Path, data: Path) -> None:
    out = data.with_name("hard.jsonl")
    mined = tasks.mine(model, data, out, MiningSettings(keep=3))
    before, after = list(examples(read(data))), list(examples(read(out)))
    assert [(one.context, one.replies) for one in before] == bare(after)
    for example, wrong in zip(after, mined.lists, strict=True):
        assert example.candidates == (example.reply, *wrong)
        assert len(wrong) == 3


def bare(found: list[Example]) -> list[tuple[Dialogue, tuple[str, ...]]]:
    """Contexts without the candidates of their messages, and replies."""

    def plain(context: Dialogue) -> Dialogue:
        said = (Message(one.role, one.content, (), one.alternatives) for one in context.messages)
        return Dialogue(tuple(said), context.persona, context.partner_persona)

    return [(plain(one.context), one.replies) for one in found]


def test_both_sides_are_those_of_training(model: Path, data: Path) -> None:
    out = data.with_name("hard.jsonl.gz")
    tasks.mine(model, data, out, both_sides=True)
    learned = list(training_examples(read(data), both_sides=True))
    assert bare(list(examples(read(out)))) == [(one.context, one.replies) for one in learned]


@pytest.mark.parametrize("limit", [1, 2, 3, 99])
def test_a_limit_takes_the_first(model: Path, data: Path, limit: int) -> None:
    whole, part = data.with_name("whole.jsonl"), data.with_name("part.jsonl")
    tasks.mine(model, data, whole)
    tasks.mine(model, data, part, limit=limit)
    found = list(examples(read(part)))
    assert found == list(examples(read(whole)))[:limit]
    assert all(example.candidates for example in found)


def test_training_reads_what_was_mined(make: Make, model: Path, data: Path) -> None:
    out = data.with_name("hard.jsonl")
    tasks.mine(model, data, out, MiningSettings(keep=2))
    learned = list(examples(read(out)))
    source = listed(learned, make(kind="cross").tokens, TrainConfig(candidates="inline"))
    batch = listed_batch(source, learned[:2], 0)
    assert batch.real.tolist() == [[True] * 3] * 2


def test_an_example_without_negatives_has_no_list(model: Path, data: Path) -> None:
    out = data.with_name("hard.jsonl")
    mined = tasks.mine(model, data, out, MiningSettings(margin=1e9))
    assert mined.as_json()["without"] == len(mined.lists)
    assert all(example.candidates == () for example in examples(read(out)))


def test_the_command_tells_how_many(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, out = data.with_name("pool.txt"), data.with_name("hard.jsonl")
    pool.write_text("\n".join(POOL))
    words = ["mine", str(model), str(data), str(data), "--out", str(out)]
    words += ["--candidates", str(pool), "--keep", "2", "--margin", "-0.5", "--draw", "20"]
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["examples"] == 4 * len(TALK)
    assert told["candidates"] == len(POOL)
    assert 0 <= told["fewest"] <= told["negatives"] <= 2
    first = out.read_bytes()
    assert run(words) == 0
    assert out.read_bytes() == first
    assert f"examples          {4 * len(TALK)}\n" in capsys.readouterr().out
    assert {text for one in examples(read(out)) for text in one.candidates[1:]} <= set(POOL)


def run(words: list[str]) -> object:
    """The exit code of a command."""
    try:
        main(words)
    except SystemExit as end:
        return end.code or 0
    return 0


def test_stopped_nothing_is_written(model: Path, data: Path) -> None:
    out = data.with_name("hard.jsonl")
    out.write_text("old")
    before = {file.name for file in data.parent.iterdir()}

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tasks.mine(model, data, out, progress=stop)
    assert out.read_text() == "old"
    assert {file.name for file in data.parent.iterdir()} == before


def test_places_that_cannot_be_written(model: Path, data: Path, tmp_path: Path) -> None:
    places = {tmp_path: "is a folder", data: "is read here", tmp_path / "no" / "x": "no folder"}
    for place, message in places.items():
        with pytest.raises(ConfigError, match=message):
            tasks.mine(model, data, place)
    with pytest.raises(RejoinderError, match="no model"):
        tasks.mine("nobody", data, tmp_path / "hard.jsonl")


def test_dialogues_without_a_reply(model: Path, tmp_path: Path) -> None:
    write_jsonl([Dialogue((Message("user", "hi"),))], tmp_path / "hi.jsonl")
    with pytest.raises(DataError, match="nothing to mine for"):
        tasks.mine(model, tmp_path / "hi.jsonl", tmp_path / "hard.jsonl")
