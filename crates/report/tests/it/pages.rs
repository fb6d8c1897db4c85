//! Pages of tiny runs: all there is comes in, nothing of it is markup, nothing is loaded.

use ragduet_report::page;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

const NASTY: &str = "</script><img src=x onerror=alert(1)> & \"'\u{2028}<!-- ";

fn run(dir: &Path, seed: u64, steps: u64) {
    std::fs::create_dir_all(dir).unwrap();
    let mut lines = String::new();
    for step in 1..=steps {
        let loss = 3.0 / step as f64 + seed as f64 * 0.1;
        let line =
            json!({"step": step, "kind": "train", "time": 1.0, "loss": loss, "lr": 1e-3, "tokens": 100});
        let _ = writeln!(lines, "{line}");
    }
    let dev = json!({"step": steps, "kind": "dev", "time": 2.0, "f1": 0.25 * seed as f64, NASTY: 1.0});
    let _ = writeln!(lines, "{dev}");
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).unwrap();
    write("metrics.jsonl", lines);
    write(
        "config.toml",
        format!("seed = {seed}\nname = {NASTY:?}\n[optim]\nlr = 1e-3\n").replace("\\u{2028}", "\\u2028"),
    );
    write("best.json", json!({"step": steps, "dev": {"f1": 0.25}}).to_string());
    write("environment.json", json!({"host": NASTY, "cpu": {"avx2": "1", "amx": "0"}}).to_string());
    let side =
        |answer: &str| json!({"answer": answer, "contexts": [{"id": "1", "title": NASTY, "text": NASTY}]});
    let sample = json!({"question": NASTY, "answers": [NASTY], "before": side("no"), "after": side(NASTY)});
    write("samples.jsonl", format!("{sample}\n"));
    write(
        "table.json",
        json!({"columns": ["EM", NASTY], "rows": [{"name": NASTY, "values": [0.5, null]}]}).to_string(),
    );
}

/// The data of a page, as a browser reads it: what stands between the tags.
fn data(html: &str) -> Value {
    let open = "<script type=\"application/json\" id=\"data\">";
    let from = html.find(open).unwrap() + open.len();
    let to = from + html[from..].find("</script>").unwrap();
    serde_json::from_str(&html[from..to]).unwrap()
}

#[test]
fn what_runs_hold_is_data_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    run(&a, 1, 5000);
    run(&b, 2, 30);
    let page = page(&[a, b]).unwrap();
    let html = page.html().unwrap();

    // The only tags are the page's own.
    assert_eq!(html.matches("<script").count(), 2);
    assert_eq!(html.matches("</script").count(), 2);
    assert!(!html.contains("<img") && !html.contains("<!--"), "a text of a run became markup");
    for load in [
        "http://",
        "https://",
        "src=",
        "@import",
        "url(",
        "fetch(",
        "innerHTML",
        "insertAdjacentHTML",
        "eval(",
    ] {
        let allowed = if load == "http://" { html.matches("http://www.w3.org/2000/svg").count() } else { 0 };
        // Texts of runs may say so; they are in the data, which is inert.
        let outside = html.replace(
            &serde_json::to_string(&page)
                .unwrap()
                .replace('<', "\\u003c")
                .replace('>', "\\u003e")
                .replace('&', "\\u0026"),
            "",
        );
        let said = if load == "innerHTML" { outside.matches("no innerHTML").count() } else { 0 };
        assert_eq!(outside.matches(load).count(), allowed + said, "{load}");
    }

    // All of it comes back as it was.
    let d = data(&html);
    assert_eq!(d["runs"][0]["samples"][0][2][0]["question"], NASTY);
    assert_eq!(d["runs"][1]["samples"][0][2][0]["after"]["contexts"][0]["text"], NASTY);
    assert_eq!(d["runs"][0]["table"]["rows"][0]["name"], NASTY);
    assert_eq!(d["runs"][0]["environment"][1], json!(["cpu", "avx2"]));
    let loss = &d["runs"][0]["sections"][0]["metrics"][0];
    assert_eq!((loss["name"].as_str(), loss["count"].as_u64()), (Some("loss"), Some(5000)));
    let points = loss["points"].as_array().unwrap();
    assert!(points.len() <= 1500 && points[0] == json!([1.0, 3.1]) && points[points.len() - 1][0] == 5000.0);
    assert_eq!(d["runs"][1]["sections"][1]["metrics"][0]["highest"], json!([30.0, 0.5]));
    assert_eq!(d["compared"], json!(["a", "b"]));
    assert_eq!(d["differences"], json!([{"key": "seed", "values": ["1", "2"]}]));
    assert!(html.len() < 200_000, "{}", html.len());
}

#[test]
fn files_of_answers_and_what_is_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answers.jsonl");
    let row = json!({"id": "1", "question": "q", "answers": ["a"], "answer": "a", "f1": 1.0, "passages": []});
    std::fs::write(&path, format!("{row}\n")).unwrap();
    let d = data(&page(&[path]).unwrap().html().unwrap());
    assert_eq!(d["runs"][0]["name"], "answers.jsonl");
    assert_eq!(d["runs"][0]["samples"][0][2][0]["after"]["measures"], json!([["f1", 1.0]]));
    let e = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        page(&[path]).unwrap_err().to_string()
    };
    assert!(e("other.jsonl", "{\"a\":1}\n").contains("no line with a question"));
    assert!(page(&[dir.path().join("gone")]).unwrap_err().to_string().contains("gone"));
}
