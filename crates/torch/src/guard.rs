//! libtorch's failures inside tensor code as errors: tch's operators panic.

use crate::error::{Error, is_oom};

/// Runs tensor code, turning a libtorch panic into an error. `during` says what was being done, `remedy` what to change
/// where memory ran out.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Torch`], and those of `f`.
pub fn catch<T, E>(during: &str, remedy: &str, f: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    E: From<Error> + std::error::Error,
{
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    let message = match caught {
        Ok(Err(e)) if is_oom(&e.to_string()) => e.to_string(),
        Ok(result) => return result,
        Err(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
            .unwrap_or_else(|| "unknown panic".into()),
    };
    let first = message.lines().next().unwrap_or_default().chars().take(400).collect::<String>();
    Err(if is_oom(&message) {
        Error::OutOfMemory { during: during.into(), message: first, remedy: remedy.into() }.into()
    } else {
        Error::Torch(format!("in {during}: {first}")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_errors() {
        let e = |message: &str| {
            catch::<(), Error>("a step", "smaller batches", || panic!("{message}")).unwrap_err().to_string()
        };
        assert!(e("size mismatch\nframe").ends_with("in a step: size mismatch"));
        let memory = e("CUDA out of memory. Tried to allocate 2 GiB");
        assert!(
            memory.contains("out of memory in a step") && memory.ends_with("smaller batches"),
            "{memory}"
        );
        assert_eq!(catch::<u8, Error>("", "", || Ok(3)).unwrap(), 3);
    }
}
