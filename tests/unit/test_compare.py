"""Two networks on photographs without labels: what their disagreement says, the page, and what its labels say."""

import csv
import functools
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from winnow.answers import disagreement, intervals
from winnow.answers.disagreement import Counts
from winnow.data import preprocessing
from winnow.exports import comparison, prediction
from winnow.files import InputError

from . import programs, tiny
from .test_report import EARS

# Of pools: how many photographs, the rate of disagreement, and who is right where the networks disagree.
POOLS = [
    (1000, 0.06, 0.5, 0.3),
    (1000, 0.06, 1.0, 0.0),
    (1000, 0.003, 0.5, 0.5),
    (1000, 0.003, 1.0, 0.0),
    (300, 0.2, 0.3, 0.3),
    (5000, 0.02, 0.1, 0.0),
]
DRAWN = 4000


@functools.cache
def bounds(counts):
    return disagreement.population(counts), disagreement.pool(counts)


def drawn(generator, images, rate, first, second, share):
    """A pool, a sample of the photographs on which the networks disagree, and how many each is right on in the pool."""
    differ = int(generator.binomial(images, rate))
    all_of_them = generator.multinomial(differ, [first, second, 1 - first - second])
    sample = max(1, round(share * differ)) if differ else 0
    labelled = generator.multivariate_hypergeometric(all_of_them, sample) if differ else np.zeros(3, int)
    return Counts(images, differ, sample, int(labelled[0]), int(labelled[1])), all_of_them


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("pool", POOLS)
def test_the_intervals_cover_in_thousands_of_pools(pool, share):
    generator = np.random.default_rng(0)
    images, rate, first, second = pool
    inside, inside_pool, bounded = [], [], []
    for _ in range(DRAWN):
        counts, (firsts, seconds, _) = drawn(generator, *pool, share)
        like, here = bounds(counts)
        inside.append(like.low <= rate * (first - second) <= like.high)
        actual = (firsts - seconds) / images
        inside_pool.append(here.low - 1e-12 <= actual <= here.high + 1e-12)
        bounded.append(
            abs(actual) <= counts.disagreeing / images
            and abs(rate * (first - second)) <= disagreement.most(counts.disagreeing, images)
        )
    assert np.mean(inside) >= 0.95
    assert np.mean(inside_pool) >= 0.95
    assert np.mean(bounded) >= 0.975


def test_sixty_labels_say_what_a_thousand_do():
    generator = np.random.default_rng(2)
    labels, ratios = [], []
    for _ in range(1000):
        right = generator.random((2, 1000)) < 0.9
        # The second answers as the first does but for one photograph in 16.
        right[1] = np.where(generator.random(1000) < 15 / 16, right[0], right[1])
        # Where both are wrong they may disagree, too: such a label is asked for in vain.
        also = ~right.any(axis=0) & (generator.random(1000) < 0.1)
        differ = (right[0] != right[1]) | also
        alone = [int((right[one] & ~right[1 - one]).sum()) for one in range(2)]
        found, _ = bounds(Counts(1000, int(differ.sum()), int(differ.sum()), *alone))
        # All labels, by the interval of drops between networks that have them.
        whole = intervals.paired_interval(right[:1].astype(float), right[1:].astype(float))
        assert found.drop == pytest.approx(whole.drop)
        labels.append(differ.sum())
        ratios.append((found.high - found.low) / (whole.high - whole.low))
    assert np.mean(labels) < 60
    assert 0.95 < np.mean(ratios) < 1.1
    assert max(ratios) < 1.35


def test_the_bound_without_labels_is_clopper_and_pearsons():
    for disagreeing, images in ((0, 50), (3, 50), (50, 50), (61, 1000)):
        exact = scipy.stats.binomtest(disagreeing, images).proportion_ci(0.95, "exact")
        assert disagreement.most(disagreeing, images) == pytest.approx(exact.high)


def test_where_one_kind_is_not_found_its_interval_is_the_exact_one():
    exact = scipy.stats.binomtest(7, 400).proportion_ci(0.95, "exact")
    # The other share's exact upper bound alone widens the other end.
    found = disagreement.population(Counts(400, 7, 7, 7, 0))
    assert found.high == pytest.approx(exact.high)
    assert found.low < exact.low
    assert disagreement.population(Counts(400, 0, 0, 0, 0)).high == pytest.approx(disagreement.most(0, 400))


def test_all_labels_make_the_pools_drop_known_and_missing_ones_widen_it():
    assert disagreement.pool(Counts(100, 10, 10, 6, 1)) == pytest.approx((0.05, 0.05, 0.05))
    half = Counts(100, 10, 5, 3, 1)
    here, like = disagreement.pool(half), disagreement.population(half)
    assert here.drop == like.drop == pytest.approx(0.04)
    assert here.low == pytest.approx(-0.03)  # all that are left are the second's
    assert like.low < here.low
    missing = disagreement.population(half._replace(unknown=1))
    assert missing.low < like.low
    assert missing.high > like.high
    # As if it were either's.
    assert missing.high == pytest.approx(disagreement.population(half._replace(first=4)).high)
    assert missing.low == pytest.approx(disagreement.population(half._replace(second=2)).low)


COLORS = {"blue": (40, 40, 220), "green": (40, 220, 40), "red": (220, 40, 40)}
# Takes what is between green and red for red where the other says green.
LEANING = np.array([[0, 0, 1], [0, 1, 0], [1.4, 0, 0]], dtype=np.float32)


def photograph(path, color, seed, size=(20, 26)):
    generator = np.random.default_rng(seed)
    # Broad shapes, so that no two are nearly the same picture.
    shapes = np.kron(generator.normal(0, 40, (5, 5, 1)), np.ones((8, 8, 1)))[: size[0], : size[1]]
    pixels = np.clip(np.asarray(color) + shapes + generator.normal(0, 5, (*size, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two networks, ``a.onnx`` and ``b.onnx``, and 41 ``photographs``: 30 of plain colors, 8 that only the second takes
    for red, one of them under an odd name, two copies of the first and one file that cannot be read."""
    root = tmp_path_factory.mktemp("pool")
    tiny.write(root / "a.onnx")
    tiny.write(root / "b.onnx", tiny.CLASSES[::-1], LEANING[::-1])
    for number in range(30):
        name = tiny.CLASSES[number % 3]
        photograph(root / "photographs" / f"{name}-{number:02d}.png", COLORS[name], number)
    for number in range(8):
        name = 'odd "name", <b>' if number == 3 else f"between-{number}"
        photograph(root / "photographs" / "more" / f"{name}.png", (130, 150, 30), 100 + number)
    for number in (1, 2):
        shutil.copy(root / "photographs" / "blue-00.png", root / "photographs" / f"copy-{number}.png")
    (root / "photographs" / "cut.png").write_bytes(b"\x89PNG\r\n")
    return root


def compared(root, dataset=None):
    models = tuple(prediction.load(root / f"{name}.onnx") for name in "ab")
    images = sorted((str(p.relative_to(root)), p) for p in (root / "photographs").rglob("*.png"))
    return comparison.compare(models, images, 2, dataset)


def test_they_are_compared_by_their_classes_names_and_each_picture_counts_once(pool):
    found = compared(pool)
    assert len(found.photographs) == 38
    assert found.repeats == 2
    assert [name for name, _ in found.unreadable] == ["photographs/cut.png"]
    assert found.seen is None
    assert {each.name for each in found.disagreeing} == {
        str(path.relative_to(pool)) for path in (pool / "photographs" / "more").iterdir()
    }
    assert {(each.first, each.second) for each in found.disagreeing} == {("green", "red")}
    # The order is drawn, and it is drawn alike.
    assert [each.name for each in found.disagreeing] != sorted(each.name for each in found.disagreeing)
    assert [each.name for each in compared(pool).disagreeing] == [each.name for each in found.disagreeing]


def run(capsys, *arguments):
    programs.run("compare", None, *arguments)
    said = capsys.readouterr()
    return said.out, said.err


def test_without_a_label_it_says_how_far_apart_they_can_be(pool, tmp_path, capsys):
    page = tmp_path / "page.html"
    out, err = run(capsys, pool / "a.onnx", pool / "b.onnx", pool / "photographs", "--output", page)
    most = 100 * disagreement.most(8, 38)
    assert "A and B disagree on 8 of 38 photographs, 21.1 %." in out
    assert "at most 21.1 points apart. On photographs like these they are at most 37.4 points apart" in out
    assert most == pytest.approx(37.31, abs=0.01)
    assert "97.5 % sure" in out
    assert "a random sample" in out
    assert "2 photographs are in the folder more than once, and count once." in out
    assert f"{page}: 8 photographs to label" in out
    assert "WARNING" not in out
    assert err.startswith("cut.png: ")
    assert len(err.splitlines()) == 1


def labels_of(page, path, told):
    """Write what somebody says of the photographs in the page's order; their names."""
    names = [html.unescape(name) for name in re.findall(r'data-file="([^"]*)"', page.read_text(encoding="utf-8"))]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows((name, label) for name, label in zip(names, told, strict=False))
    return names


@pytest.fixture
def page(pool, tmp_path, capsys):
    run(capsys, pool / "a.onnx", pool / "b.onnx", pool / "photographs", "--output", tmp_path / "page.html")
    return tmp_path / "page.html"


def test_with_all_labels_the_drop_is_known_here_and_bounded_elsewhere(pool, page, tmp_path, capsys):
    arguments = [pool / "a.onnx", pool / "b.onnx", pool / "photographs", "--labels", tmp_path / "labels.csv"]
    labels_of(page, tmp_path / "labels.csv", ["green"] * 5 + ["red", comparison.NONE, "blue"])
    out, _ = run(capsys, *arguments)
    assert "Of these 8 A is right on 5, B on 1, neither on 2.\n" in out
    assert "On these photographs B is right 10.5 points less often than A: that is known.\n" in out
    found = disagreement.population(Counts(38, 8, 8, 5, 1))
    low, high = np.floor(1000 * found.low) / 10, np.ceil(1000 * found.high) / 10
    said = f"10.5 points less often than A: the drop's 95 % interval is {low} to {high} points.".replace("-", "−")
    assert f"On photographs like these B is right {said}" in out
    assert "photographs to label" not in out


def test_some_labels_from_the_top_are_a_sample_and_gaps_count_against_either_bound(pool, page, tmp_path, capsys):
    arguments = [pool / "a.onnx", pool / "b.onnx", pool / "photographs", "--labels", tmp_path / "labels.csv"]
    labels_of(page, tmp_path / "labels.csv", ["green", "red", "green", "green"])
    out, _ = run(capsys, *arguments)
    assert "Of 4 of them, drawn at random, A is right on 3, B on 1, neither on 0.\n" in out
    assert "On these photographs B is right 10.5 points less often than A: the drop's 95 % interval is" in out
    assert "from the page's top on" not in out
    labels_of(page, tmp_path / "labels.csv", ["green", "red", "", "green"])
    out, _ = run(capsys, *arguments)
    assert "Of 4 of them, drawn at random, A is right on 2, B on 1, neither on 0, and 1 without a label.\n" in out
    assert "from the page's top on" in out
    # Labels of photographs on which they agree say nothing of the difference.
    with open(tmp_path / "labels.csv", "a") as file:
        file.write("blue-00.png,red\n")
    assert run(capsys, *arguments)[0] == out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,label\n", r"has the columns name, label: needed are file, label"),
        (
            "file,label\nmore/between-1.png,orange\n",
            r"line 2: 'orange' is none of the classes: allowed are blue, green, red",
        ),
        ("file,label\nx,red\nx,green\n", r"line 3: x has two labels, red and green"),
        ("file,label\nblue-00.png,red\n", r"has a label for none of the photographs on which the two disagree"),
    ],
)
def test_labels_that_say_nothing_are_an_error(pool, tmp_path, text, says):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        programs.run(
            *("compare", None, pool / "a.onnx", pool / "b.onnx", pool / "photographs"),
            *("--labels", tmp_path / "labels.csv"),
        )


def test_networks_of_other_classes_are_not_compared(pool, tmp_path):
    other = tiny.write(tmp_path / "other.onnx", ["blue", "green", "violet"])
    says = r"a\.onnx and .*other\.onnx do not tell the same classes: only in a\.onnx: red; only in other\.onnx: violet"
    with pytest.raises(InputError, match=says):
        programs.run("compare", None, pool / "a.onnx", other, pool / "photographs")


def test_images_of_a_data_set_are_left_out(pool, tmp_path, capsys):
    pixels = [
        preprocessing.decode((pool / "photographs" / name).read_bytes(), preprocessing.Form(16)).pixels
        for name in ("green-01.png", "more/between-2.png")
    ]
    programs.stored(tmp_path / "store", np.stack(pixels), [0, 1], ["train", "test"])
    found = compared(pool, tmp_path / "store")
    assert found.seen == 2
    assert len(found.photographs) == 36
    assert len(found.disagreeing) == 7
    assert "2 photographs are images of the data set, and were left out." in comparison.cautions(found)
    programs.stored(tmp_path / "large", np.zeros((1, 20, 20, 3), np.uint8), [0], ["train"])
    with pytest.raises(InputError, match="large has images of another size or reading than either network"):
        compared(pool, tmp_path / "large")


def test_near_copies_are_warned_of(pool, tmp_path):
    root = tmp_path / "pool"
    shutil.copytree(pool, root)
    for number in range(5):
        with Image.open(root / "photographs" / f"{tiny.CLASSES[number % 3]}-{number:02d}.png") as image:
            image.resize((52, 40)).save(root / "photographs" / f"larger-{number}.png")
    (warning,) = [line for line in comparison.cautions(compared(root)) if line.startswith("WARNING")]
    assert warning.startswith("WARNING: 5 photographs are nearly the same picture as another one")


def test_networks_that_see_images_otherwise_are_each_asked_in_their_own_way(pool, tmp_path):
    large = tiny.write(tmp_path / "large.onnx", size=20, store_size=24)
    images = sorted((path.name, path) for path in (pool / "photographs").glob("*.png"))
    found = comparison.compare((prediction.load(pool / "b.onnx"), prediction.load(large)), images, 2)
    assert len(found.photographs) == 30
    assert not found.disagreeing
    assert "are at most 0.0 points apart. On photographs like these they are at most 11.6 points" in " ".join(
        comparison.sentences(found)
    )


def test_the_page_holds_all_that_it_shows_and_does_not_say_who_said_what(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert text.count('src="data:image/jpeg;base64,') == 8
    assert 'data-file="more/odd &#34;name&#34;, &lt;b&gt;.png"' in text
    sets = re.findall(r"<fieldset.*?</fieldset>", text, re.DOTALL)
    shapes = {re.sub(r'src="[^"]*"|data-file="[^"]*"|<legend.*?</legend>|\d+', "", one) for one in sets}
    assert len(shapes) == 1, "all look alike, whatever the networks say"
    assert re.findall(r'value="([^"]*)"', sets[0]) == [*tiny.CLASSES, comparison.NONE]


def test_of_many_photographs_some_are_shown_and_of_many_classes_two(pool, tmp_path, capsys):
    names = [f"class {number:03d}" for number in range(100)]
    some = np.zeros((100, 3), np.float32)
    some[[3, 50, 99]] = tiny.BY_COLOR
    other = some.copy()
    other[99] *= 1.4
    for name, weights in (("a", some), ("b", other)):
        tiny.write(tmp_path / f"{name}.onnx", names, weights)
    output = tmp_path / "page.html"
    arguments = [tmp_path / "a.onnx", tmp_path / "b.onnx", pool / "photographs", "--output", output, "--most", "5"]
    out, _ = run(capsys, *arguments)
    assert f"{output}: 5 photographs to label" in out
    text = output.read_text(encoding="utf-8")
    assert "5 of them; 3 more are not shown" in re.sub(r"\s+", " ", text)
    sets = re.findall(r"<fieldset.*?</fieldset>", text, re.DOTALL)
    assert [re.findall(r'value="([^"]*)"', one) for one in sets] == [["class 050", "class 099", comparison.NONE]] * 5
    assert re.findall(r'<option value="([^"]*)">', text) == names


# Clicks, as somebody would, and catches what the page would save.
HANDS = """<script>
addEventListener("load", async () => {
  const sets = [...document.querySelectorAll("fieldset")];
  const click = (place, number) => [...sets[place].querySelectorAll("input[type=radio]")].at(number).click();
  click(0, 1); click(1, 1); click(2, -1); click(1, 0);
  const typed = sets[3].querySelector("input[list]");
  if (typed) {
    typed.value = "class 007";
    typed.dispatchEvent(new Event("change", { bubbles: true }));
  }
  let saved;
  const real = URL.createObjectURL;
  URL.createObjectURL = (blob) => { saved = blob; return real.call(URL, blob); };
  document.getElementById("save").click();
  const probe = document.createElement("pre");
  probe.id = "told";
  probe.textContent = JSON.stringify({
    table: await saved.text(), count: document.getElementById("count").textContent, complaints: window.complaints,
    done: sets.map((set) => set.classList.contains("done")),
    broken: [...document.images].filter((image) => !image.naturalWidth).length,
  });
  document.body.append(probe);
});
</script>"""


def clicked(browser, page, folder):
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{EARS}", 1)
    (folder / "clicked.html").write_text(text.replace("</body>", f"{HANDS}</body>"), encoding="utf-8")
    for attempt in range(3):
        profile = folder / f"profile_{attempt}"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", "--dump-dom"]
        try:
            done = subprocess.run(
                [*command, (folder / "clicked.html").as_uri()], capture_output=True, text=True, timeout=60
            )
            break
        except subprocess.TimeoutExpired:
            # Now and then a browser in virtual time waits for itself.
            assert attempt < 2
    return json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)[1]))


def test_labels_that_were_clicked_are_those_that_are_read(pool, page, browser, tmp_path):
    told = clicked(browser, page, tmp_path)
    assert told["complaints"] == []
    assert told["broken"] == 0
    assert told["count"] == "3 of 8 labelled"
    assert told["done"] == [True] * 3 + [False] * 5
    (tmp_path / "labels.csv").write_text(told["table"], encoding="utf-8")
    found = compared(pool)
    names = [each.name.removeprefix("photographs/") for each in found.disagreeing]
    with open(tmp_path / "labels.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file", "label"], [names[0], "green"], [names[1], "blue"], [names[2], comparison.NONE]
        ]  # fmt: skip


def test_another_class_can_be_typed(pool, browser, tmp_path, capsys):
    names = [f"class {number:03d}" for number in range(100)]
    weights = np.zeros((100, 3), np.float32)
    weights[[3, 50, 99]] = tiny.BY_COLOR
    tiny.write(tmp_path / "a.onnx", names, weights)
    weights[99] *= 1.4
    tiny.write(tmp_path / "b.onnx", names, weights)
    run(capsys, tmp_path / "a.onnx", tmp_path / "b.onnx", pool / "photographs", "--output", tmp_path / "page.html")
    told = clicked(browser, tmp_path / "page.html", tmp_path)
    assert [row[1] for row in csv.reader(told["table"].splitlines())] == [
        *("label", "class 099", "class 050", comparison.NONE, "class 007")
    ]
