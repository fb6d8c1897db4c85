//! What a run makes once and reads again: a teacher's scores, a reference's log-probabilities, what a first stage found.

use crate::checkpoint::{recover, replace_dir};
use crate::{Error, Result, RunDir, World};
use fs_err as fs;
use ragduet_torch::weights::write_atomic;
use std::path::Path;

/// The file in an artifact's folder that says what it was made from.
const KEY: &str = "made-from";

impl RunDir {
    /// The folder `name` of the run: made by the first process where it is not there (whole or not at all), and read by
    /// all. `key`: what it is made from, a hash or the like.
    ///
    /// # Errors
    /// Those of `make` and `read`; a folder that was made from something else.
    pub fn artifact<T, E: From<Error>>(
        &self,
        world: &World,
        name: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), E>,
        read: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.path().join(name);
        let kept = path.join(KEY);
        if world.is_first() {
            recover(&path).map_err(Error::from)?;
            if !kept.is_file() {
                replace_dir::<E>(&path, |d| {
                    make(d)?;
                    write_atomic(&d.join(KEY), key.as_bytes()).map_err(|e| E::from(Error::from(e)))
                })?;
            }
        }
        world.barrier();
        let made_from = fs::read_to_string(&kept).map_err(Error::from)?;
        if made_from != key {
            let why = "was made from other data or another model than the run now has: put those back, or start a new \
                       run with --out";
            return Err(Error::RunDir { path, why: why.into() }.into());
        }
        read(&path)
    }
}
