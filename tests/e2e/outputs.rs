//! Whatever writes, killed before its Nth operation on files, or met by a full disk there: the output is the old one or the
//! new one, whole; run again it is the new one, and nothing else is left.
//!
//! A few points of every command by default; `RAGDUET_KILLS=200` tries as many in all (every point where there are fewer).

use crate::util::{config, failed, ok, ragduet, root, s, slice};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file or folder: what is in each file, by its path within.
type Tree = BTreeMap<String, Vec<u8>>;

fn read(path: &Path) -> Option<Tree> {
    fn walk(at: &Path, root: &Path, all: &mut Tree) {
        if at.is_dir() {
            for entry in std::fs::read_dir(at).unwrap() {
                walk(&entry.unwrap().path(), root, all);
            }
        } else {
            let name = at.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            all.insert(name, std::fs::read(at).unwrap());
        }
    }
    let mut all = Tree::new();
    path.exists().then(|| walk(path, path, &mut all))?;
    Some(all)
}

fn restore(tree: &Tree, path: &Path) {
    for (name, bytes) in tree {
        let file = if name.is_empty() { path.to_path_buf() } else { path.join(name) };
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
}

/// A command that writes to its last argument. With other inputs it makes the output that is replaced.
struct Job {
    name: &'static str,
    new: Vec<String>,
    /// `None`: it writes to nothing that is there.
    old: Option<Vec<String>>,
    /// A folder that is added to: file by file, so that each is the old or the new one.
    adds: bool,
}

fn job(name: &'static str, new: &[&str], old: Option<&[&str]>) -> Job {
    let owned = |args: &[&str]| args.iter().map(|a| (*a).to_string()).collect();
    Job { name, new: owned(new), old: old.map(owned), adds: false }
}

struct World {
    library: PathBuf,
    dir: PathBuf,
}

impl World {
    fn command(&self, args: &[String], out: &Path, env: &[(&str, &str)]) -> Command {
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.push(s(out));
        let mut c = ragduet(&all);
        c.env("LD_PRELOAD", &self.library).env("KILL_UNDER", self.dir.join("trial"));
        c.envs(env.iter().copied());
        c
    }

    fn whole(&self, args: &[String], out: &Path) {
        let done = self.command(args, out, &[]).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// An empty folder for a trial, with the old output in it where there is one.
    fn place(&self, name: &str, old: Option<&Tree>) -> PathBuf {
        let trial = self.dir.join("trial");
        if trial.exists() {
            std::fs::remove_dir_all(&trial).unwrap();
        }
        std::fs::create_dir(&trial).unwrap();
        let out = trial.join(name);
        if let Some(old) = old {
            restore(old, &out);
        }
        out
    }

    /// Kills a command at some of its operations, and fills the disk at others. How many trials were made.
    fn try_out(&self, job: &Job, trials: Option<usize>) -> usize {
        let suffix = job.name.split_once('.').map_or(String::new(), |(_, e)| format!(".{e}"));
        let name = format!("out{suffix}");
        let old = job.old.as_ref().map(|args| {
            let out = self.place(&name, None);
            self.whole(args, &out);
            read(&out).unwrap()
        });
        let mut done = 0;
        for before in [old.as_ref(), None].into_iter().skip(usize::from(old.is_none())) {
            let log = self.dir.join("log");
            let _ = std::fs::remove_file(&log);
            let out = self.place(&name, before);
            let logging = self.command(&job.new, &out, &[("KILL_LOG", s(&log))]).output().unwrap();
            assert!(logging.status.success(), "{}", String::from_utf8_lossy(&logging.stderr));
            let new = read(&out).unwrap();
            let operations: Vec<String> =
                std::fs::read_to_string(&log).unwrap().lines().map(String::from).collect();
            assert!(operations.len() >= 3, "{}: {operations:?}", job.name);
            let share = trials.unwrap_or(1).min(operations.len());
            // Another place for every command, the same in every run.
            let first = job.name.bytes().map(usize::from).sum::<usize>() % operations.len();
            for i in 0..share {
                let at = 1 + (first + i * operations.len() / share) % operations.len();
                let what = format!("{}, {}", job.name, operations[at - 1]);
                // Where time is short: killed where there was an output before, a full disk where there was none.
                if trials.is_some() || before.is_some() || old.is_none() {
                    self.kill(job, &name, (before, &new), (at, &what));
                    done += 1;
                }
                if trials.is_some() || before.is_none() {
                    self.fill_the_disk(job, &name, (before, &new), (at, &what));
                    done += 1;
                }
            }
        }
        done
    }

    fn kill(&self, job: &Job, name: &str, (old, new): (Option<&Tree>, &Tree), (at, what): (usize, &str)) {
        let out = self.place(name, old);
        let killed = self.command(&job.new, &out, &[("KILL_AT", &at.to_string())]).output().unwrap();
        assert!(!killed.status.success(), "{what}: not killed");
        self.old_or_new(job, &out, (old, new), what);
        self.whole(&job.new, &out);
        assert!(read(&out).as_ref() == Some(new), "{what}: run again, it is another");
        self.nothing_else(name, what);
    }

    fn fill_the_disk(
        &self,
        job: &Job,
        name: &str,
        (old, new): (Option<&Tree>, &Tree),
        (at, what): (usize, &str),
    ) {
        let out = self.place(name, old);
        let done = self.command(&job.new, &out, &[("FAIL_AT", &at.to_string())]).output().unwrap();
        if done.status.success() {
            // Not every operation can fail: one that tidies up behind the new output is no reason to.
            assert!(read(&out).as_ref() == Some(new), "{what}: the disk was full, and nothing was said");
        } else {
            let said = failed(1, done);
            assert!(said.contains("No space left"), "{what}: {said}");
            self.old_or_new(job, &out, (old, new), what);
        }
        self.nothing_else(name, what);
    }

    fn old_or_new(&self, job: &Job, out: &Path, (old, new): (Option<&Tree>, &Tree), what: &str) {
        let now = read(out);
        if let (true, Some(old)) = (job.adds, old) {
            let now = now.unwrap();
            // What a killed process was writing lies hidden beside its place, until the next output there.
            for (file, bytes) in now.iter().filter(|(file, _)| !file.ends_with(".ragduet")) {
                assert!(old.get(file) == Some(bytes) || new.get(file) == Some(bytes), "{what}: {file}");
            }
            assert!(old.keys().all(|k| now.contains_key(k)), "{what}: a file is gone");
        } else {
            assert!(
                now.as_ref() == old || now.as_ref() == Some(new),
                "{what}: neither the old nor the new one"
            );
        }
    }

    fn nothing_else(&self, name: &str, what: &str) {
        let left: Vec<_> =
            std::fs::read_dir(self.dir.join("trial")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| n == name), "{what}: left behind: {left:?}");
    }
}

#[test]
fn every_output_is_whole_or_as_it_was() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = &tmp.path().canonicalize().unwrap();
    let library = dir.join("killat.so");
    let source = root().join("tests/e2e/killat.c");
    let built =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o", s(&library), s(&source), "-ldl"]).status();
    assert!(built.is_ok_and(|b| b.success()), "the C compiler that libtorch's shim needs");
    let world = World { library, dir: dir.clone() };

    let data = slice(dir, 12);
    std::fs::copy(root().join("datasets/maravel/answers.jsonl"), data.join("answers.jsonl")).unwrap();
    let c = config(dir, &data, "[run]\nmax_steps = 1\n");
    let (run, lora) = (dir.join("run"), dir.join("lora"));
    ok(&["train", "retriever", "-q", "-c", s(&c), "--out", s(&run)]);
    let base = run.join("best");
    let text = std::fs::read_to_string(&c).unwrap();
    let (before, after) = text.split_once("[model.scratch]").unwrap();
    let (_, after) = after.split_once("[data]").unwrap();
    let text = format!(
        "[peft.lora]\nrank = 2\n{}\n[data]{after}",
        before.replacen("[model]", &format!("[model]\nbase = {:?}", s(&base)), 1)
    );
    std::fs::write(dir.join("lora.toml"), text).unwrap();
    ok(&["train", "retriever", "-q", "-c", s(&dir.join("lora.toml")), "--out", s(&lora)]);
    let corpus = data.join("corpus.jsonl");
    let text = std::fs::read_to_string(&corpus).unwrap();
    let half: String = text.lines().take(text.lines().count() / 2).flat_map(|l| [l, "\n"]).collect();
    let less = dir.join("less.jsonl");
    std::fs::write(&less, half).unwrap();
    let encoded = dir.join("encoded");
    ok(&["encode", "-q", "-m", s(&base), "-i", s(&corpus), "-o", s(&encoded)]);

    let (base, data, corpus, less) = (s(&base), s(&data), s(&corpus), s(&less));
    let (lora, encoded, run) = (lora.join("best"), s(&encoded), s(&run));
    let lora = s(&lora);
    let convert = |split| ["data", "convert", data, "--split", split, "--to"];
    let encode = |input| ["encode", "-q", "-m", base, "-i", input, "-o"];
    let words = |input| ["index", "build", "--kind", "lexical", "--corpus", input, "-o"];
    let build = |input| ["index", "build", "-q", "-m", base, "--kind", "exact", "--corpus", input, "-o"];
    let retrieve = |split| ["retrieve", "-q", "-m", base, "--data", data, "--split", split, "-o"];
    let measure =
        |split| ["eval", "retriever", "-q", "-m", base, "--data", data, "--split", split, "--save-run"];
    let jobs = [
        job("convert.jsonl.gz", &convert("train"), Some(&convert("dev"))),
        job("convert.parquet", &convert("train"), Some(&convert("dev"))),
        Job { adds: true, ..job("convert to a folder", &convert("train"), Some(&convert("dev"))) },
        job("encode", &encode(corpus), Some(&encode(less))),
        job("index of words", &words(corpus), Some(&words(less))),
        job("index of vectors", &build(corpus), Some(&build(less))),
        job(
            "index of an encode",
            &["index", "build", "--kind", "exact", "--embeddings", encoded, "-o"],
            None,
        ),
        job("retrieve.jsonl", &retrieve("train"), Some(&retrieve("dev"))),
        job("run.trec", &measure("train"), Some(&measure("dev"))),
        job("report.html", &["report", run, "-o"], None),
        job("merge", &["merge", lora, "-o"], None),
    ];
    let wanted = std::env::var("RAGDUET_KILLS").ok().map(|n| n.parse::<usize>().unwrap());
    // Each point is tried four times: killed and with a full disk, over an output and without one.
    let each = wanted.map(|n| n.div_ceil(4 * jobs.len()));
    let done: usize = jobs.iter().map(|job| world.try_out(job, each)).sum();
    eprintln!("{done} trials");
    assert!(done >= 2 * jobs.len() && done >= wanted.unwrap_or(0) / 2, "{done}");
}
