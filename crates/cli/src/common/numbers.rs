//! Numbers of the command line, each with its bounds.

use std::fmt::Display;
use std::str::FromStr;

/// Reads a number from `low` to `high`.
pub fn number<T: FromStr + PartialOrd + Display + Copy>(
    low: T,
    high: T,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let bounds = || format!("a number from {low} to {high}");
        let number: T = text.parse().map_err(|_| bounds())?;
        if (low..=high).contains(&number) { Ok(number) } else { Err(bounds()) }
    }
}

/// Reads a count: 1 or more.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number of 1 or more".into())
}

/// Reads any finite number.
pub fn finite(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|n: &f32| n.is_finite()).ok_or_else(|| "a finite number".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_said() {
        assert_eq!(number(1, 8)("8"), Ok(8));
        for text in ["0", "9", "-1", "1.5", "", "18446744073709551616"] {
            assert_eq!(number(1, 8)(text), Err("a number from 1 to 8".into()), "{text}");
        }
        for text in ["NaN", "inf", "1.01"] {
            assert_eq!(number(0.0, 1.0)(text), Err("a number from 0 to 1".into()), "{text}");
        }
        assert_eq!((count("1"), count("0").is_err()), (Ok(1), true));
        assert!(finite("-2.5").is_ok() && finite("inf").is_err());
    }
}
