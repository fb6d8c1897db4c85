"""Goldens for `meteor` and `wordnet`: nltk 3.10.4, on a small database in WordNet's format that this script writes."""
import json, pathlib, random, shutil
import nltk
from nltk import wordpunct_tokenize
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.translate.meteor_score import meteor_score

here = pathlib.Path(__file__).resolve().parent
nltk.data.path.append(str(here))  # it opens corpora nowhere else
folder = here / "wordnet"
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir()
SYNSETS = {
    "noun": [["dog", "hound", "domestic_dog"], ["man", "guy", "fellow"], ["Paris", "capital_of_France"], ["car", "auto", "motorcar"], ["leaf", "blade"],
             ["child", "kid"], ["kid", "goat"], ["run", "sprint"], ["party", "feast"]],
    "verb": [["run", "sprint", "dash"], ["ensure", "guarantee"], ["go", "travel", "move"], ["try", "attempt"], ["hear", "listen_in"]],
    "adj": [["big", "large", "huge"], ["galore(ip)", "abounding"], ["former(a)", "late(a)"], ["fast", "quick"]],
    "adv": [["fast", "tight"], ["quickly", "rapidly", "chop-chop"]],
}
LICENCE = "  1 This is made-up data in the format of WordNet, for tests.  \n"
EXC = {"noun": "children child\nmice mouse\n", "verb": "ran run\nwent go\n", "adj": "bigger big\n", "adv": ""}
for name, synsets in SYNSETS.items():
    pos, data, index = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[name], LICENCE, {}
    for words in synsets:
        offset = len(data.encode())
        for w in words:
            index.setdefault(w.split("(")[0].lower(), []).append(offset)
        data += f"{offset:08d} 00 {pos} {len(words):02x} " + " ".join(f"{w} 0" for w in words) + (" 000 00 | " if pos == "v" else " 000 | ") + "made up  \n"
    (folder / f"data.{name}").write_text(data)
    (folder / f"index.{name}").write_text(LICENCE + "".join(
        f"{w} {pos} {len(o)} 2 @ ~ {len(o)} 0 " + " ".join(f"{x:08d}" for x in o) + "  \n" for w, o in sorted(index.items())))
    (folder / f"{name}.exc").write_text(EXC[name])
(folder / "lexnames").write_text("00\tadj.all\t3\n")
class Small(WordNetCorpusReader):
    def map_wn(self, version="wordnet"):  # to other WordNet versions, which are not here
        return None

wordnet = Small(str(folder), None)

class Empty:
    def synsets(self, word):
        return []

random.seed(3)
WORDS = ["dog", "dogs", "hound", "Man", "men", "guy", "guys", "Paris", "paris", "cars", "auto", "leaves", "blade", "children", "kid", "kids", "goat", "ran", "running",
         "sprint", "dash", "ensures", "guarantee", "went", "travel", "tries", "attempt", "bigger", "large", "huge", "galore", "abounding", "late", "fast", "quick", "tight",
         "quickly", "rapidly", "the", "the", "a", ".", ",", "É", "中文", "party", "feast", "a_b"]
rows = []
def add(p, refs):
    tok = wordpunct_tokenize
    rows.append(dict(prediction=p, references=refs, tokens=tok(p), with_synonyms=meteor_score([tok(r) for r in refs], tok(p), wordnet=wordnet),
                     without=meteor_score([tok(r) for r in refs], tok(p), wordnet=Empty())))
for p, r in [("", [""]), ("", ["a"]), ("a", [""]), ("a", ["a"]), ("...!?", ["..."]), ("it's 3.5%\u001cx\u3000y", ["its 3.5 %"]), ("the cat the", ["the the cat", "cat"]),
             ("x² a‿b a\u0301b", ["क्षि ½ ⅷ Ⓐb x"]), ("क्षि½ⅷ Ⓐb\u200dc", ["b"])]:
    add(p, r)
for _ in range(300):
    text = lambda: " ".join(random.choice(WORDS) for _ in range(random.randrange(12)))
    add(text(), [text() for _ in range(random.randrange(1, 4))])
synonyms = {w: sorted({l.name() for s in wordnet.synsets(w) for l in s.lemmas() if "_" not in l.name()}) for w in WORDS}
(here / "meteor.json").write_text(json.dumps(dict(rows=rows, synonyms=synonyms), ensure_ascii=False, separators=(",", ":")))
