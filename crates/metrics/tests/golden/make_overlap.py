"""Goldens for `rouge`, `bleu`, `chrf`, `porter`. Reference tools: rouge-score 0.1.2, sacrebleu 2.6.0, nltk 3.10.4."""
import json, pathlib, random
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

random.seed(11)
WORDS = ["the", "cat", "cats", "running", "runs", "ran", "relational", "happily", "happy", "skies", "dying", "U.S.", "3.5", "3,000", "1-2",
         "-", "it's", "«été»", "naïve", "中文", "&quot;x&quot;", "&amp;lt;", "<skipped>", "wall-\nclock", "\n", "a\u001cb", "\u3000", "$5.", "...", ",",
         "x.y", "generalizations", "hopefulness", "(hi)", "END.", "İ", "K", "¼", "5-", "!?", "_", "~"]
PLAIN = ["the", "cat", "sat", "on", "mat", "a", "dog", "\n", "ran"]

def text(words, n):
    return "".join(random.choice(words) + random.choice([" "] * 6 + [""]) for _ in range(n))

def vary(s):
    return "".join(w + " " for w in s.split(" ") if random.random() > 0.2)

rows = []
TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
scorers = {False: RougeScorer(TYPES), True: RougeScorer(TYPES, use_stemmer=True)}
sent_bleu, chrf = BLEU(effective_order=True), CHRF()
def add(p, refs):
    b = sent_bleu.sentence_score(p, refs)
    r = {k: [list(s[t]) for t in TYPES] for k, s in ((str(st).lower(), sc.score_multi(refs, p)) for st, sc in scorers.items())}
    rows.append(dict(prediction=p, references=refs, plain=r["false"], stemmed=r["true"], bleu=b.score, precisions=b.precisions, bp=b.bp,
                     chrf=chrf.sentence_score(p, refs).score))
for p, r in [("", [""]), ("", ["x"]), ("x", [""]), ("...", ["..."]), ("a b c", ["a b c"]), ("a b c d", ["a b c d"]), ("the cat", ["dog", "the", "cat the"]),
             ("a\nb", ["b\na", "a b"]), ("a b", ["a", "a b c"]), ("x y", ["a b"]), ("。", ["。"]), ("ab", ["abcdefgh"]), ("a", ["a", "", "b"])]:
    add(p, r)
for i in range(220):
    words = WORDS if i % 2 else PLAIN
    p = text(words, random.randrange(16))
    refs = [vary(p) if random.random() < 0.5 else text(words, random.randrange(16)) for _ in range(random.randrange(1, 4))]
    random.shuffle(refs)
    add(p, refs)

corpora = []
for start, end in [(0, 1), (0, 13), (13, 40), (13, 233), (2, 3), (100, 104), (4, 5)]:
    part = rows[start:end]
    width = max(len(r["references"]) for r in part)
    streams = [[r["references"][i] if i < len(r["references"]) else None for r in part] for i in range(width)]
    b = BLEU().corpus_score([r["prediction"] for r in part], streams)
    corpora.append(dict(start=start, end=end, bleu=b.score, hyp=b.sys_len, ref=b.ref_len,
                        chrf=CHRF().corpus_score([r["prediction"] for r in part], streams).score))

stemmer = PorterStemmer()
ENDS = ["sses", "ies", "ss", "s", "ied", "eed", "ed", "ing", "at", "bl", "iz", "y", "ational", "tional", "enci", "anci", "izer", "bli", "alli", "entli", "eli",
        "ousli", "ization", "ation", "ator", "alism", "iveness", "fulness", "ousness", "aliti", "iviti", "biliti", "fulli", "logi", "icate", "ative", "alize",
        "iciti", "ical", "ful", "ness", "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "sion", "ou", "ism", "ate",
        "iti", "ous", "ive", "ize", "e", "ll", "alliing", "ogi"]
stems = {}
for w in ["", "a", "is", "İs", "ÀS", "sky", "Skies", "dying", "news", "innings", "howe", "proceed", "exceeding", "a*ding", "*ding", "ééing", "yyyy", "yy", "dies", "died",
          "spied", "feed", "agreed", "hopping", "falling", "fizzed", "by", "say", "enjoy", "happy", "geologi", "theologi", "controll", "roll", "ings", "oed", "éed"]:
    stems[w] = stemmer.stem(w)
for _ in range(3000):
    w = "".join(random.choice("aeiouybcdlstzwx") for _ in range(random.randrange(7))) + random.choice(ENDS) + random.choice([""] * 3 + ENDS)
    stems[w] = stemmer.stem(w)
pathlib.Path(__file__).with_name("overlap.json").write_text(json.dumps(dict(rows=rows, corpora=corpora), ensure_ascii=False, separators=(",", ":")))
pathlib.Path(__file__).with_name("stems.json").write_text(json.dumps(stems, ensure_ascii=False, separators=(",", ":")))
