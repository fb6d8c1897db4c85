//! Objectives against their formulas in f64, against transformers' RagModel, by finite differences, and where they must
//! be careful.

use ragduet_joint::objective::{
    AnswerLogProbs, AttentionDistillation, Direction, Distillation, Emdr2, Evidence, LeaveOneOut, Marginal,
    MarginalSettings, Normalize, ObjectiveConfig, ObjectiveLoss, Preset, RagSequence, RagToken, Teacher,
};
use ragduet_testkit::check_gradient;
use ragduet_torch::{Kind, Tensor};
use serde_json::Value;

/// B x K x T answers with their lengths, and similarities.
struct Case {
    scores: Vec<Vec<f64>>,
    values: Vec<Vec<Vec<f64>>>,
    lengths: Vec<usize>,
}

/// A reproducible number in [0, 1).
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

fn case(k: usize, lengths: &[usize], seed: u64) -> Case {
    let mut s = seed;
    let t = *lengths.iter().max().unwrap();
    let mut of =
        |n: usize| (0..t).map(|i| if i < n { -3.0 * draw(&mut s) } else { 0.0 }).collect::<Vec<f64>>();
    let values = lengths.iter().map(|&n| (0..k).map(|_| of(n)).collect()).collect();
    let scores = lengths.iter().map(|_| (0..k).map(|_| 2.0 * draw(&mut s) - 1.0).collect()).collect();
    Case { scores, values, lengths: lengths.to_vec() }
}

fn tensor(rows: &[Vec<f64>]) -> Tensor {
    let flat: Vec<f32> = rows.iter().flatten().map(|&x| x as f32).collect();
    Tensor::from_slice(&flat).view([rows.len() as i64, rows[0].len() as i64])
}

impl Case {
    fn answers(&self) -> AnswerLogProbs {
        let (b, k, t) = (self.values.len(), self.values[0].len(), self.values[0][0].len());
        let flat: Vec<f32> = self.values.iter().flatten().flatten().map(|&x| x as f32).collect();
        let mask: Vec<f32> =
            self.lengths.iter().flat_map(|&n| (0..t).map(move |i| f32::from(u8::from(i < n)))).collect();
        AnswerLogProbs {
            values: Tensor::from_slice(&flat).view([b as i64, k as i64, t as i64]),
            mask: Tensor::from_slice(&mask).view([b as i64, t as i64]),
        }
    }

    /// What passages are looked at, made of the answers' first tokens: [B, K], above 0.
    fn looks(&self) -> Tensor {
        let of = |q: &Vec<Vec<f64>>| q.iter().map(|t| t[0].exp()).collect();
        tensor(&self.values.iter().map(of).collect::<Vec<Vec<f64>>>())
    }

    fn loss(&self, config: &ObjectiveConfig) -> ObjectiveLoss {
        let (scores, answers, looks) = (tensor(&self.scores), self.answers(), self.looks());
        let e = Evidence {
            scores: &scores,
            answers: Some(&answers),
            without: Some(&answers),
            attention: Some(&looks),
            present: None,
        };
        config.loss(&e).unwrap()
    }
}

fn value(t: &Tensor) -> f64 {
    f64::try_from(t.to_kind(Kind::Double)).unwrap()
}

fn close(have: f64, want: f64, what: &str) {
    assert!((have - want).abs() < 1e-5 * (1.0 + want.abs()), "{what}: {have} {want}");
}

fn log_softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = x.iter().map(|v| v / temperature).collect();
    let top = scaled.iter().copied().fold(f64::MIN, f64::max);
    let sum = scaled.iter().map(|v| (v - top).exp()).sum::<f64>().ln() + top;
    scaled.iter().map(|v| v - sum).collect()
}

fn marginal(c: &Case, temperature: f64, over: Marginal) -> f64 {
    let mut total = 0.0;
    for b in 0..c.scores.len() {
        let prior = log_softmax(&c.scores[b], temperature);
        match over {
            Marginal::Sequence => {
                let p: f64 = (0..prior.len())
                    .map(|k| (prior[k] + c.values[b][k][..c.lengths[b]].iter().sum::<f64>()).exp())
                    .sum();
                total -= p.ln();
            }
            Marginal::Token => {
                for t in 0..c.lengths[b] {
                    let p: f64 = (0..prior.len()).map(|k| (prior[k] + c.values[b][k][t]).exp()).sum();
                    total -= p.ln();
                }
            }
        }
    }
    total
}

fn settings(score_temperature: f64, normalize: Normalize) -> MarginalSettings {
    MarginalSettings { score_temperature, normalize }
}

#[test]
fn marginal_likelihoods_are_their_formulas() {
    let c = case(4, &[3, 1, 5], 7);
    let tokens = 9.0;
    for temperature in [1.0, 0.05] {
        let of = |n| settings(temperature, n);
        for (config, want) in [
            (
                ObjectiveConfig::RagSequence(RagSequence(of(Normalize::Questions))),
                marginal(&c, temperature, Marginal::Sequence) / 3.0,
            ),
            (
                ObjectiveConfig::RagSequence(RagSequence(of(Normalize::Tokens))),
                marginal(&c, temperature, Marginal::Sequence) / tokens,
            ),
            (
                ObjectiveConfig::RagToken(RagToken(of(Normalize::Questions))),
                marginal(&c, temperature, Marginal::Token) / 3.0,
            ),
            (
                ObjectiveConfig::RagToken(RagToken(of(Normalize::Tokens))),
                marginal(&c, temperature, Marginal::Token) / tokens,
            ),
        ] {
            close(value(&c.loss(&config).loss), want, &format!("{config:?}"));
        }
        for (over, name) in [(Marginal::Sequence, "sequence"), (Marginal::Token, "token")] {
            let e = Emdr2 { score_temperature: temperature, marginal: over, normalize: Normalize::Questions };
            close(
                value(&c.loss(&ObjectiveConfig::Emdr2(e)).loss),
                marginal(&c, temperature, over) / 3.0,
                name,
            );
        }
    }
}

#[test]
fn distillation_is_its_formula_in_both_directions() {
    let c = case(5, &[2, 4], 11);
    let per_token = |b: usize, k: usize| c.values[b][k].iter().sum::<f64>() / c.lengths[b] as f64;
    let sum = |b: usize, k: usize| c.values[b][k].iter().sum::<f64>();
    for (teacher, of) in [
        (Teacher::MeanLogProbability, Box::new(per_token) as Box<dyn Fn(usize, usize) -> f64>),
        (Teacher::LogProbability, Box::new(sum)),
        (Teacher::Probability, Box::new(|b, k| sum(b, k).exp())),
    ] {
        for direction in [Direction::TeacherToStudent, Direction::StudentToTeacher] {
            let config = Distillation {
                preset: Preset::Pdist,
                teacher: Some(teacher),
                teacher_temperature: Some(0.3),
                score_temperature: Some(0.2),
                direction: Some(direction),
            };
            let mut want = 0.0;
            for b in 0..2 {
                let q = log_softmax(&(0..5).map(|k| of(b, k)).collect::<Vec<_>>(), 0.3);
                let p = log_softmax(&c.scores[b], 0.2);
                let (from, to) = if direction == Direction::TeacherToStudent { (&q, &p) } else { (&p, &q) };
                want += from.iter().zip(to).map(|(f, t)| f.exp() * (f - t)).sum::<f64>() / 2.0;
            }
            let have = c.loss(&ObjectiveConfig::Distillation(config));
            close(value(&have.loss), want, &format!("{teacher:?} {direction:?}"));
        }
    }
    // LOOP: the teacher prefers the passage without which the answer is least likely.
    let config = LeaveOneOut {
        teacher_temperature: 0.1,
        score_temperature: 0.2,
        direction: Direction::TeacherToStudent,
    };
    let have = c.loss(&ObjectiveConfig::LeaveOneOut(config));
    let mut want = 0.0;
    for b in 0..2 {
        let q = log_softmax(&(0..5).map(|k| -per_token(b, k)).collect::<Vec<_>>(), 0.1);
        let p = log_softmax(&c.scores[b], 0.2);
        want += q.iter().zip(&p).map(|(f, t)| f.exp() * (f - t)).sum::<f64>() / 2.0;
    }
    close(value(&have.loss), want, "leave one out");
}

#[test]
fn presets_are_the_published_settings() {
    let c = case(3, &[2, 2], 3);
    let same = |preset, full: Distillation| {
        let short = Distillation { preset, ..Distillation::default() };
        let (a, b) =
            (c.loss(&ObjectiveConfig::Distillation(short)), c.loss(&ObjectiveConfig::Distillation(full)));
        assert_eq!(value(&a.loss), value(&b.loss));
    };
    let full = |teacher, t, s, direction| Distillation {
        preset: Preset::Pdist,
        teacher: Some(teacher),
        teacher_temperature: Some(t),
        score_temperature: Some(s),
        direction: Some(direction),
    };
    same(Preset::Pdist, full(Teacher::MeanLogProbability, 0.01, 0.277, Direction::TeacherToStudent));
    same(Preset::ReplugLsr, full(Teacher::Probability, 0.1, 0.1, Direction::StudentToTeacher));
    same(Preset::RaDit, full(Teacher::Probability, 0.01, 1.0, Direction::StudentToTeacher));
    let text = "[distillation]\npreset = \"replug_lsr\"\nscore_temperature = 0.05\n";
    let parsed: ObjectiveConfig = toml::from_str(text).unwrap();
    assert!(matches!(&parsed, ObjectiveConfig::Distillation(d) if d.score_temperature == Some(0.05)));
    assert!(toml::from_str::<ObjectiveConfig>("[rag_sequence]\ntemperature = 1.0\n").is_err());
    let zero: ObjectiveConfig = toml::from_str("[rag_token]\nscore_temperature = 0.0\n").unwrap();
    assert!(zero.validate().unwrap_err().to_string().contains("objective.rag_token.score_temperature"));
}

#[test]
fn as_transformers_but_for_the_prior_of_one_token_answers() {
    let golden: Value = serde_json::from_str(include_str!("../golden/rag.json")).unwrap();
    let mut lost = 0;
    for g in golden["cases"].as_array().unwrap() {
        let of =
            |v: &Value| -> Vec<f64> { v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
        let rows = |v: &Value| -> Vec<Vec<f64>> { v.as_array().unwrap().iter().map(of).collect() };
        let c = Case {
            scores: rows(&g["scores"]),
            values: g["values"].as_array().unwrap().iter().map(rows).collect(),
            lengths: of(&g["lengths"]).iter().map(|&n| n as usize).collect(),
        };
        let m = settings(1.0, Normalize::Questions);
        let token = g["kind"] == "token";
        let config = if token {
            ObjectiveConfig::RagToken(RagToken(m))
        } else {
            ObjectiveConfig::RagSequence(RagSequence(m))
        };
        let have = value(&c.loss(&config).loss) * c.scores.len() as f64;
        let mut want = g["loss"].as_f64().unwrap();
        if !token {
            // transformers adds the prior to the second token, which such an answer does not have: undo what it lost.
            for (b, _) in c.lengths.iter().enumerate().filter(|(_, n)| **n == 1) {
                let k = c.scores[b].len();
                let without: f64 = (0..k).map(|i| c.values[b][i][0].exp()).sum::<f64>().ln();
                let prior = log_softmax(&c.scores[b], 1.0);
                let with: f64 = (0..k).map(|i| (prior[i] + c.values[b][i][0]).exp()).sum::<f64>().ln();
                want += without - with;
                lost += 1;
            }
        }
        close(have, want, &format!("{} {:?}", g["kind"], c.lengths));
    }
    assert_eq!(lost, 1);
}

#[test]
fn with_one_passage_the_marginal_is_the_loss_of_supervised_fine_tuning() {
    let c = case(1, &[3, 1, 6], 19);
    let sft = -c.values.iter().flatten().flatten().sum::<f64>() / 10.0;
    let m = || settings(1.0, Normalize::Tokens);
    close(value(&c.loss(&ObjectiveConfig::RagSequence(RagSequence(m()))).loss), sft, "sequence");
    close(value(&c.loss(&ObjectiveConfig::RagToken(RagToken(m()))).loss), sft, "token");
}

fn all() -> Vec<ObjectiveConfig> {
    let m = || settings(0.5, Normalize::Tokens);
    let distil = |direction| Distillation {
        teacher_temperature: Some(0.5),
        score_temperature: Some(0.5),
        direction: Some(direction),
        ..Distillation::default()
    };
    vec![
        ObjectiveConfig::RagSequence(RagSequence(m())),
        ObjectiveConfig::RagToken(RagToken(m())),
        ObjectiveConfig::Emdr2(Emdr2 { score_temperature: 0.5, ..Emdr2::default() }),
        ObjectiveConfig::Emdr2(Emdr2 {
            score_temperature: 0.5,
            marginal: Marginal::Sequence,
            ..Emdr2::default()
        }),
        ObjectiveConfig::Distillation(distil(Direction::TeacherToStudent)),
        ObjectiveConfig::Distillation(distil(Direction::StudentToTeacher)),
        ObjectiveConfig::LeaveOneOut(LeaveOneOut {
            teacher_temperature: 0.5,
            score_temperature: 0.5,
            ..LeaveOneOut::default()
        }),
        ObjectiveConfig::Attention(AttentionDistillation {
            score_temperature: 0.7,
            ..AttentionDistillation::default()
        }),
    ]
}

#[test]
fn attention_teaches_by_what_is_looked_at() {
    let c = case(3, &[2, 4], 41);
    let looks: Vec<Vec<f64>> = c.values.iter().map(|q| q.iter().map(|t| t[0].exp()).collect()).collect();
    for (relative, direction) in [
        (true, Direction::TeacherToStudent),
        (false, Direction::TeacherToStudent),
        (true, Direction::StudentToTeacher),
    ] {
        let config = ObjectiveConfig::Attention(AttentionDistillation {
            teacher_temperature: 0.3,
            relative,
            score_temperature: 0.7,
            direction,
        });
        let mut want = 0.0;
        for (looks, scores) in looks.iter().zip(&c.scores) {
            let mean = if relative { looks.iter().sum::<f64>() / 3.0 } else { 1.0 };
            let teacher = log_softmax(&looks.iter().map(|l| l / mean).collect::<Vec<_>>(), 0.3);
            let student = log_softmax(scores, 0.7);
            let (p, q) = match direction {
                Direction::TeacherToStudent => (teacher, student),
                Direction::StudentToTeacher => (student, teacher),
            };
            want += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>() / 2.0;
        }
        close(value(&c.loss(&config).loss), want, &format!("{relative} {direction:?}"));
    }
    // A passage that was not shown is not there: the others' loss alone.
    let config = ObjectiveConfig::Attention(AttentionDistillation::default());
    let (two, scores) = (tensor(&[vec![0.2, 0.6]]), tensor(&[vec![0.1, -0.4]]));
    let (three, more) = (tensor(&[vec![0.2, 0.6, -1.0]]), tensor(&[vec![0.1, -0.4, 3.0]]));
    let of = |looks: &Tensor, scores: &Tensor| {
        let e = Evidence { scores, answers: None, without: None, attention: Some(looks), present: None };
        value(&config.loss(&e).unwrap().loss)
    };
    close(of(&three, &more), of(&two, &scores), "not shown");
}

#[test]
fn gradients_are_finite_differences() {
    let c = case(3, &[2, 4, 1], 23);
    let mask = c.answers().mask;
    for config in all() {
        // Where the generator does not learn, a finite difference would move the teacher, too.
        let learns = config.trains_generator();
        let fixed = c.answers().values;
        let looks = c.looks();
        let inputs =
            if learns { vec![tensor(&c.scores), c.answers().values] } else { vec![tensor(&c.scores)] };
        check_gradient(&inputs, 2e-3, |x| {
            let values = if learns { &x[1] * mask.unsqueeze(1) } else { fixed.shallow_clone() };
            let answers = AnswerLogProbs { values, mask: mask.shallow_clone() };
            let e = Evidence {
                scores: &x[0],
                answers: Some(&answers),
                without: Some(&answers),
                attention: Some(&looks),
                present: None,
            };
            config.loss(&e).unwrap().loss
        });
    }
}

#[test]
fn teachers_get_no_gradient_and_absent_passages_none_either() {
    let c = case(4, &[2, 3], 31);
    let present = Tensor::from_slice(&[true, true, true, false, true, false, false, false]).view([2, 4]);
    for config in all() {
        let scores = tensor(&c.scores).set_requires_grad(true);
        let (answers, looks) = (c.answers(), c.looks());
        let values = answers.values.set_requires_grad(true);
        let answers = AnswerLogProbs { values: values.shallow_clone(), mask: answers.mask };
        let e = Evidence {
            scores: &scores,
            answers: Some(&answers),
            without: Some(&answers),
            attention: Some(&looks),
            present: Some(&present),
        };
        let of = config.loss(&e).unwrap();
        of.loss.backward();
        assert!(value(&of.loss).is_finite(), "{config:?}");
        let grad = scores.grad();
        assert!(grad.isfinite().all().int64_value(&[]) == 1, "{config:?}");
        for (b, k) in [(0, 3), (1, 1), (1, 2), (1, 3)] {
            assert_eq!(grad.double_value(&[b, k]), 0.0, "{config:?}");
            assert_eq!(of.student.double_value(&[b, k]), 0.0, "{config:?}");
            assert_eq!(of.teacher.double_value(&[b, k]), 0.0, "{config:?}");
        }
        // One passage alone has probability 1, whatever it scores.
        assert_eq!(grad.double_value(&[1, 0]), 0.0, "{config:?}");
        assert!(!of.teacher.requires_grad() && !of.student.requires_grad());
        let reached = values.grad().defined();
        assert_eq!(reached, config.trains_generator(), "{config:?}");
        if reached {
            assert_eq!(value(&values.grad().get(0).get(3).abs().sum(Kind::Double)), 0.0);
            assert!(value(&values.grad().get(0).get(0).abs().sum(Kind::Double)) > 0.0);
        }
    }
}

#[test]
fn extreme_scores_and_answers_stay_finite() {
    let mut c = case(3, &[40, 1], 5);
    c.values[0].iter_mut().flatten().for_each(|v| *v = -90.0);
    c.scores = vec![vec![1e4, -1e4, 0.0], vec![-1e4, 1e4, 1e4]];
    for config in all() {
        let scores = tensor(&c.scores).set_requires_grad(true);
        let (answers, looks) = (c.answers(), c.looks());
        let e = Evidence {
            scores: &scores,
            answers: Some(&answers),
            without: Some(&answers),
            attention: Some(&looks),
            present: None,
        };
        let of = config.loss(&e).unwrap();
        of.loss.backward();
        assert!(value(&of.loss).is_finite(), "{config:?}: {}", value(&of.loss));
        assert!(scores.grad().isfinite().all().int64_value(&[]) == 1, "{config:?}");
    }
}

#[test]
fn evidence_that_is_not_there_is_asked_for() {
    let scores = Tensor::zeros([1, 2], (Kind::Float, ragduet_torch::Device::Cpu));
    let e = Evidence { scores: &scores, answers: None, without: None, attention: None, present: None };
    for config in all() {
        assert!(config.loss(&e).unwrap_err().to_string().contains("the objective needs"), "{config:?}");
    }
}
